"""How long to wait before the next attempt to connect."""

from datetime import timedelta
from random import Random

FIRST_DELAY = timedelta(milliseconds=200)
LONGEST_DELAY = timedelta(seconds=10)


class Backoff:
    """Exponential with full jitter, so that a thousand workers do not come back at once."""

    def __init__(
        self, random: Random, *, first: timedelta = FIRST_DELAY, cap: timedelta = LONGEST_DELAY
    ) -> None:
        self._random = random
        self._first = first
        self._cap = cap
        self._failures = 0

    @property
    def failures(self) -> int:
        return self._failures

    def next_delay(self) -> timedelta:
        """Count one more failure; the time to wait after it."""
        # The exponent is bounded: a broker may be away for days.
        ceiling = min(self._cap, self._first * 2 ** min(self._failures, 16))
        self._failures += 1
        return timedelta(seconds=ceiling.total_seconds() * self._random.random())

    def reset(self) -> None:
        self._failures = 0
