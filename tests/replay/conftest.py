"""`HYPOTHESIS_PROFILE=nightly` looks much longer than the default of 500 examples a law."""

import os

from hypothesis import HealthCheck, settings

_slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("ci", max_examples=500, deadline=None, suppress_health_check=_slow)
settings.register_profile(
    "nightly", max_examples=10_000, deadline=None, suppress_health_check=_slow
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
