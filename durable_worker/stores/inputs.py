"""Everything that can happen to a run. Any process may hand one to a store (`Store.submit`)."""

import msgspec
from msgspec import UNSET, Struct

from durable_worker.protocol.base import Payload
from durable_worker.protocol.commands import WorkflowDecision
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.results import StepResult
from durable_worker.protocol.runs import Reuse, RunStatus
from durable_worker.stores.records import Parent

POISON = "poison"
"""Failure code of what was given up because its messages could not be handled."""


class Input(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type"):
    """Base of all inputs. `run_id` is the run that it concerns."""

    run_id: str


class StartRun(Input, frozen=True, kw_only=True, tag="start"):
    """Start a run, once for each `run_id`. `search_attributes` is a JSON object."""

    workflow: str
    version: str | None = None
    input: Payload = UNSET
    namespace: str = "default"
    partition: str | None = None
    tags: tuple[str, ...] = ()
    search_attributes: Payload = UNSET
    parent: Parent | None = None


class WorkflowAvailable(Input, frozen=True, kw_only=True, tag="workflow-available"):
    """A worker that serves `version` of the workflow that a pending run needs has appeared."""

    version: str


class ResultReceived(Input, frozen=True, kw_only=True, tag="result"):
    """`attempt` is None where the message did not say which attempt it answers."""

    result: StepResult
    attempt: int | None = None


class DecisionReceived(Input, frozen=True, kw_only=True, tag="decision"):
    """`version`: the newest that is served of the workflow, where the decision goes on with it."""

    decision: WorkflowDecision
    version: str | None = None


class TimerDue(Input, frozen=True, kw_only=True, tag="timer"):
    seq: int


class SignalMatched(Input, frozen=True, kw_only=True, tag="signal-matched"):
    """The wait at `seq` gets a signal. `received_at`: when that came, if it was before the wait."""

    seq: int
    payload: Payload = UNSET
    received_at: int | None = None


class CancelRequested(Input, frozen=True, kw_only=True, tag="cancel"):
    """`is_final`: end the run at once, its body is not told and undoes nothing. `replaced_by`: the
    run that was started in its place."""

    is_final: bool = False
    replaced_by: str | None = None


class ChildEnded(Input, frozen=True, kw_only=True, tag="child-ended"):
    """The child that `run_id` started at `seq` has reached a terminal status."""

    seq: int
    status: RunStatus
    output: Payload = UNSET
    error: Failure | None = None


class StepPoisoned(Input, frozen=True, kw_only=True, tag="step-poisoned"):
    """A call cannot be carried out: its messages are not deliverable or not readable.

    `is_suspicion`: the broker gave up on the message, which may only have lain beside the one that
    killed its workers. `recoveries`: how often that message had been sent again before.
    `deliveries`: how often the broker had delivered it. `letter`: the id of the dead letter.
    """

    seq: int
    reason: str
    code: str = POISON
    attempt: int | None = None
    is_suspicion: bool = False
    recoveries: int = 0
    deliveries: int | None = None
    letter: str | None = None


class TurnPoisoned(Input, frozen=True, kw_only=True, tag="turn-poisoned"):
    """A turn cannot be carried out: its messages are not deliverable or not readable.

    `is_suspicion`, `deliveries` and `letter` as for `StepPoisoned`.
    """

    task_id: str
    reason: str
    code: str = POISON
    is_suspicion: bool = False
    deliveries: int | None = None
    letter: str | None = None


class TurnLost(Input, frozen=True, kw_only=True, tag="turn-lost"):
    """Nobody works on the turn that is out. `is_counted` False: it was given up in good order."""

    task_id: str
    is_counted: bool = True


class StepLost(Input, frozen=True, kw_only=True, tag="step-lost"):
    """Nobody works on the attempt that is out; it had been sent again `recoveries` times."""

    seq: int
    attempt: int
    recoveries: int
    is_counted: bool = True


class Redispatched(Input, frozen=True, kw_only=True, tag="redispatch"):
    """Somebody asked to send everything that is out once more."""


class StepRedriven(Input, frozen=True, kw_only=True, tag="step-redriven"):
    """A call that a dead letter had failed is to be tried again, as if it had not failed.

    `keeps_attempt`: what failed was its answer, which comes again. `last_seq`: the highest seq
    that the run had asked for when the letter came.
    """

    seq: int
    attempt: int
    keeps_attempt: bool = False
    last_seq: int | None = None


class TurnRedriven(Input, frozen=True, kw_only=True, tag="turn-redriven"):
    """A run that ended because of a dead letter, of its last turn, goes on.

    `keeps_turn`: what failed was the answer, which comes again. `is_cancelling`: the run was.
    """

    task_id: str
    keeps_turn: bool = False
    is_cancelling: bool = False


class Unparked(Input, frozen=True, kw_only=True, tag="unparked"):
    """Somebody asks for another turn of a run whose code has failed it.

    `is_guess`: not a person, but a worker has come that may have other code; what was parked a
    moment ago waits for its time.
    """

    is_guess: bool = False


class LetterRedriven(
    Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="letter-redriven"
):
    """Somebody asked to send a dead letter of this namespace again; once, until it fails again."""

    letter_id: str
    namespace: str = "default"


class SignalSent(
    Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="signal"
):
    """A signal for whoever waits for `name`, now or later; once for each `signal_id`.

    `received_at`: when it came first, if a run had it that has not taken it.
    """

    signal_id: str
    namespace: str = "default"
    name: str
    payload: Payload = UNSET
    received_at: int | None = None


class StartRequested(
    Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag="start-requested"
):
    """A start that does as `reuse` says if its run id is taken; once for each `request_id`.

    What came of it is kept like a consumed signal, under `outcome_id`.
    """

    request_id: str
    reuse: Reuse
    start: StartRun

    @property
    def run_id(self) -> str:
        return self.start.run_id

    @property
    def outcome_id(self) -> str:
        return f"start:{self.start.namespace}/{self.request_id}"


RunInput = (
    StartRun
    | WorkflowAvailable
    | ResultReceived
    | DecisionReceived
    | TimerDue
    | SignalMatched
    | CancelRequested
    | ChildEnded
    | StepPoisoned
    | TurnPoisoned
    | TurnLost
    | StepLost
    | Redispatched
    | StepRedriven
    | TurnRedriven
    | Unparked
)
"""An input for one run."""

AnyInput = RunInput | SignalSent | LetterRedriven | StartRequested

_decoder: msgspec.json.Decoder[AnyInput] = msgspec.json.Decoder(AnyInput)
_encoder = msgspec.json.Encoder()


def encode_input(value: AnyInput) -> bytes:
    return _encoder.encode(value)


def decode_input(body: bytes) -> AnyInput:
    """Raises `msgspec.DecodeError` on what a newer version has written, and on what is damaged or
    nested too deeply."""
    try:
        if not body.isascii():
            body.decode()
        return _decoder.decode(body)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from error
