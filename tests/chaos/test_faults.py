"""Every kind of fault, one after the other, on real processes, with runs of every kind on the way.

CHAOS_SEED repeats a plan. `make chaos` plays many, for minutes.
"""

from pathlib import Path
from random import Random

import pytest

from tests.chaos.audit.rules import audit
from tests.chaos.driver import play
from tests.chaos.plan import seed_or, selected


@pytest.mark.timeout(1_800)
async def test_no_fault_loses_a_run_or_records_an_effect_twice(tmp_path: Path) -> None:
    seed = seed_or(1)
    plan = selected(Random(seed))
    print(f"CHAOS_SEED={seed}: {', '.join(plan)}")
    assert audit(await play(tmp_path, plan, seed=seed)) == []
