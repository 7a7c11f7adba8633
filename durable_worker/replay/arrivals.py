"""Results by the order in which they came, where history tells it (protocol/README.md, "Ordered
history"): a body gets the earliest of those that it waits for, so a longer history changes nothing
that a shorter one has brought about."""

import sys
from collections.abc import Mapping
from heapq import heappop, heappush

from durable_worker.protocol.tasks import HistoryEvent, HistoryKind
from durable_worker.replay.journal import Journal
from durable_worker.replay.operations import Operation


class Arrivals:
    """`latest` is the order of the latest result that the body has got."""

    def __init__(self, journal: Journal, outstanding: Mapping[int, Operation]) -> None:
        self.latest = 0
        self._journal = journal
        self._outstanding = outstanding
        self._due: list[tuple[bool, int, int]] = []

    def awaited(self, seq: int) -> None:
        """The body waits for what may be there already."""
        event = self._journal.events.get(seq)
        if event is not None:
            heappush(self._due, _place(event))

    def got(self, event: HistoryEvent) -> None:
        if event.order is not None and event.order > self.latest:
            self.latest = event.order

    def earliest(self) -> int | None:
        """The seq of what the body is to get next; None if nothing is there."""
        fresh, due = self._journal.fresh, self._due
        for event in fresh:
            if event.seq in self._outstanding:
                heappush(due, _place(event))
        fresh.clear()
        while due:
            seq = heappop(due)[-1]
            if seq in self._outstanding:
                return seq
        return None


def _place(event: HistoryEvent) -> tuple[bool, int, int]:
    """Steps that ran in their turn come first: they knew of nothing that came meanwhile."""
    is_recorded = event.kind is HistoryKind.STEP
    return not is_recorded, sys.maxsize if event.order is None else event.order, event.seq
