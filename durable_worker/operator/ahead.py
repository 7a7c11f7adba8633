"""Steps that are called before the decisions that ask for them are recorded.

Only where nothing is lost by it: the process that dies takes along its worker and all messages, and
the turn that is made again asks for the same again (`is_repeatable`). All that such a step rests on
is recorded. The decision is committed with what happens to the run next, or a little later. A step
that takes its process down is first taken for a turn that does, and called once more for that.
"""

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass

from msgspec import Struct

from durable_worker.operator.ledgers import Ledgers
from durable_worker.operator.messages import Outgoing, message_for, step_row
from durable_worker.operator.transitions.apply import apply
from durable_worker.operator.transitions.effects import Emit, Limits, SendStep, Transition
from durable_worker.operator.transitions.repeatable import is_repeatable, may_be_repeatable
from durable_worker.protocol.names import Names
from durable_worker.stores.inputs import DecisionReceived
from durable_worker.stores.records import OutboxRow


class Unrecorded(Struct, frozen=True):
    """A decision that is in memory alone, and what it has done, beside changing the run."""

    decision: DecisionReceived
    moved: Transition
    round: int

    @property
    def events(self) -> list[Emit]:
        return [effect for effect in self.moved.effects if isinstance(effect, Emit)]

    def left(self) -> Iterable[str]:
        """The keys of the messages that have left."""
        return (row.key for row in _rows(self.moved))


@dataclass(frozen=True, slots=True)
class Going:
    """How messages go ahead, and whether they may: `is_sure` tells that nobody else can have taken
    the store over yet."""

    is_sure: Callable[[], bool]
    send: Callable[[Sequence[Outgoing]], None]


class Ahead:
    """What is in memory and not recorded yet, by run."""

    def __init__(self, ledgers: Ledgers, names: Names, limits: Limits, going: Going) -> None:
        self._ledgers = ledgers
        self._names = names
        self._limits = limits
        self._going = going
        self._runs: dict[str, Unrecorded] = {}
        self._round = 0

    def __bool__(self) -> bool:
        return bool(self._runs)

    @property
    def run_ids(self) -> Container[str]:
        """Runs whose state must not leave the memory."""
        return self._runs

    def take(self, value: DecisionReceived, *, now: int) -> bool:
        """Apply it and send what it asks for; False if it has to be committed first."""
        if value.run_id in self._runs:
            return False
        ledger = self._ledgers.find(value.run_id)
        if ledger is None or not may_be_repeatable(ledger.state, value.decision):
            return False
        moved = apply(ledger.state, value, now=now, limits=self._limits)
        if not is_repeatable(moved) or not self._going.is_sure():
            return False
        try:
            ledger.note_keeper(value.decision)
            ledger.absorb(moved.run, moved.checkpoints)
            outgoing = [message_for(ledger, row, names=self._names) for row in _rows(moved)]
        except Exception:
            self._ledgers.forget([value.run_id])
            raise
        self._runs[value.run_id] = Unrecorded(value, moved, self._round)
        self._going.send(outgoing)
        return True

    def adopt(self, run_id: str) -> Unrecorded | None:
        """What a transaction that is about to change the run has to record as well."""
        return self._runs.pop(run_id, None)

    def due(self, *, all_of_it: bool = False) -> list[str]:
        """Runs that have waited for one round at least; the next round begins."""
        self._round += 1
        latest = self._round - (1 if all_of_it else 2)
        return [run_id for run_id, each in self._runs.items() if each.round <= latest]


def _rows(moved: Transition) -> Iterable[OutboxRow]:
    for effect in moved.effects:
        if isinstance(effect, SendStep):
            yield step_row(effect.run_id, effect.seq, effect.attempt)
