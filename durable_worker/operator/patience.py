"""How long a store that refuses is asked again."""

from collections.abc import Callable

from durable_worker.operator.options import OperatorOptions


class Patience:
    """Begins with the first refusal, not with the first attempt: a process that stood still in the
    middle of an attempt finds all of its time gone, and must ask again nevertheless."""

    def __init__(self, options: OperatorOptions, monotonic: Callable[[], float]) -> None:
        self._seconds = options.store_patience.total_seconds()
        self._monotonic = monotonic
        self._since: float | None = None

    def left(self) -> float:
        """Seconds that are left after one more refusal; 0: give up."""
        now = self._monotonic()
        if self._since is None:
            self._since = now
        return max(0.0, self._since + self._seconds - now)

    def renew(self) -> None:
        """The store has answered."""
        self._since = None
