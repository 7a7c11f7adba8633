"""What a body asks for, written down beside what its history holds.

A journal that answers turns keeps no such list, for speed; where a history does not fit, the turn
is replayed once more with this one.
"""

from collections.abc import Mapping

from msgspec import Struct

from durable_worker.errors import DiffLine, NondeterminismError
from durable_worker.protocol.base import MAX_INTEGER
from durable_worker.protocol.tasks import HistoryEvent, HistoryKind
from durable_worker.replay.journal import Journal, TurnAbortedError, caller_location
from durable_worker.replay.operations import Location, describe, place_of


class Asked(Struct, frozen=True):
    """What the body asks for at a seq. `name` is what history would tell, or a person."""

    kind: HistoryKind
    name: str | None
    location: Location | None = None

    def describe(self) -> str:
        return describe(self.kind, self.name)

    @property
    def place(self) -> str | None:
        return None if self.location is None else place_of(self.location)


class Witness(Journal):
    """A journal for a replay that only looks: nothing that history does not hold is made.

    `waiting` is what was asked for in earlier turns and is still open, `is_over` says that there
    will be no further turn. `new_ground` is the seq at
    which a value would have been made; the body went no further.
    """

    def __init__(
        self, waiting: Mapping[int, Asked] | None = None, *, is_over: bool = False
    ) -> None:
        super().__init__()
        self.waiting = waiting or {}
        # How far earlier turns have been, which a patch asks about: everywhere in a run that is
        # over, and where something is open, of which the next turn will be told.
        self.told_seq = MAX_INTEGER if is_over else max(self.waiting, default=-1)
        self.asked: dict[int, Asked] = {}
        self.new_ground: int | None = None
        self._differing: set[int] = set()

    def expect(
        self,
        seq: int,
        kind: HistoryKind,
        name: str | None,
        location: Location | None = None,
        *,
        must_exist: bool = False,
    ) -> HistoryEvent | None:
        self.asked[seq] = Asked(kind, name, location or caller_location())
        try:
            event = super().expect(seq, kind, name, location, must_exist=must_exist)
        except TurnAbortedError:
            self._differing.add(seq)
            # What the body asks for side by side with this is part of the picture: the turn ends
            # when the body is idle.
            self.is_sealed = False
        else:
            if self.failure is None:
                return event
        return None

    def produces(self, seq: int) -> None:
        if self.failure is None:
            self.new_ground = seq
        self.is_sealed = True
        raise TurnAbortedError

    def explain(self, error: NondeterminismError) -> NondeterminismError:
        """`error` with both sides by seq."""
        recorded = {
            **{seq: f"{each.describe()} (open)" for seq, each in self.waiting.items()},
            **{seq: describe(each.kind, each.name) for seq, each in self.events.items()},
        }
        seqs = sorted({*recorded, *self.asked, error.seq})
        return NondeterminismError(
            seq=error.seq,
            recorded=error.recorded,
            asked=error.asked,
            location=error.location,
            lines=[self._line(seq, recorded.get(seq), error) for seq in seqs],
        ).with_traceback(error.__traceback__)

    def _line(self, seq: int, history: str | None, error: NondeterminismError) -> DiffLine:
        if seq == error.seq:
            return DiffLine(
                seq=seq,
                history=error.recorded,
                code=error.asked,
                location=error.location,
                differs=True,
            )
        asked = self.asked.get(seq)
        if asked is not None:
            code: str | None = asked.describe()
        else:
            # What the replay has recorded for itself is not asked for, it is followed.
            code = history if seq < error.seq else None
        place = None if asked is None else asked.place
        differs = seq in self._differing
        return DiffLine(seq=seq, history=history, code=code, location=place, differs=differs)
