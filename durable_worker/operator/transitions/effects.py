"""What a transition asks of the engine. Messages are built from the state when they are sent."""

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec import UNSET, Struct

from durable_worker.protocol.base import Payload
from durable_worker.protocol.control import EngineEventType, GivenUp
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.runs import RunStatus
from durable_worker.stores.inputs import RunInput, SignalSent
from durable_worker.stores.records import Checkpoint, Run


class SendTurn(Struct, frozen=True, gc=False):
    run_id: str
    task_id: str


class SendStep(Struct, frozen=True, gc=False):
    run_id: str
    seq: int
    attempt: int


class BroadcastCancel(Struct, frozen=True):
    """Tell the run's running steps to stop; with `seqs` only those, since others are yet to run.
    `given_up`: only these, for which nobody waits any more: they are stopped whatever they do."""

    run_id: str
    seqs: tuple[int, ...] | None = None
    given_up: tuple[GivenUp, ...] = ()


class AwaitSignal(Struct, frozen=True):
    """A wait has begun; a buffered signal of that name resolves it at once."""

    run_id: str
    seq: int
    namespace: str
    signal: str


class Deliver(Struct, frozen=True):
    """An input for another run, or a signal for whoever waits for it, to be applied in the same
    transaction or durably later."""

    input: RunInput | SignalSent


class Emit(Struct, frozen=True, gc=False):
    """Something that whoever listens is told (`events.event_of`); `call` is how it stood before."""

    type: EngineEventType
    run_id: str
    workflow: str
    namespace: str
    at: int
    call: Checkpoint | None = None
    output: Payload = UNSET
    error: Failure | None = None


class Bury(Struct, frozen=True):
    """Keep the message of a turn (`seq` is None) or an attempt as a dead letter: no broker has it.

    `status` is that of the run when it was sent.
    """

    run_id: str
    task_id: str | None
    seq: int | None
    attempt: int
    status: RunStatus
    reason: str


Effect = SendTurn | SendStep | BroadcastCancel | AwaitSignal | Deliver | Emit | Bury


@dataclass(frozen=True, slots=True)
class Limits:
    """`recoveries`: how often a lost turn or step is sent again before it is given up.
    `second_chances`: the same for one on which the broker gave up, after many deliveries each."""

    recoveries: int = 10
    second_chances: int = 2


class Transition(Struct, frozen=True, gc=False):
    """What changes: the run (None: unchanged), checkpoints, and the effects in order. `withdrawn`:
    the seqs of checkpoints that are no more."""

    run: Run | None = None
    checkpoints: Sequence[Checkpoint] = ()
    effects: Sequence[Effect] = ()
    withdrawn: Sequence[int] = ()


NOTHING = Transition()
"""The input was applied already, or concerns nothing that exists."""
