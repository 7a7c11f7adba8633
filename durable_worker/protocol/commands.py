"""What a workflow body asks for, and the decision that carries it to the operator."""

from enum import StrEnum
from typing import Annotated

from msgspec import UNSET, Meta

from durable_worker.protocol.base import Attempt, Count, Message, Millis, Name, Payload, Seq
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.results import StepEvent


class RetryOptions(Message, frozen=True, kw_only=True):
    """Retry policy of one call. Sent only to an operator that states `call-retry`, and with
    `timeout_ms`, how long each attempt may take, only to one that states `call-timeout`.

    The wait before attempt n+1 is `min(max_ms, initial_ms * factor ** (n - 1))`, spread evenly by
    `jitter` (a fraction of itself) to either side. `non_retryable` holds failure codes.
    """

    attempts: Attempt
    initial_ms: Millis = 1_000
    factor: Annotated[float, Meta(ge=1)] = 2.0
    max_ms: Millis = 60_000
    jitter: Annotated[float, Meta(ge=0, le=1)] = 0.0
    non_retryable: list[str] | None = None
    timeout_ms: Millis | None = None


class Command(Message, frozen=True, kw_only=True, tag_field="kind"):
    seq: Seq


class ScheduleStep(Command, frozen=True, kw_only=True, tag="call"):
    """Run the step `name`. `group` is a partition (`default`: none), never a routing token."""

    name: Name
    group: str
    input: Payload = UNSET
    parallel_group: str | None = None
    retry: RetryOptions | None = None


class RecordStep(Command, frozen=True, kw_only=True, tag="recordStep"):
    """Something that already happened inside the turn: persist it under `seq`."""

    name: Name
    output: Payload = UNSET
    error: Failure | None = None
    started_at: Millis | None = None
    finished_at: Millis | None = None
    events: list[StepEvent] | None = None
    parallel_group: str | None = None


class StartTimer(Command, frozen=True, kw_only=True, tag="sleep"):
    ms: Millis


class WaitSignal(Command, frozen=True, kw_only=True, tag="waitSignal"):
    signal: Name


class StartChild(Command, frozen=True, kw_only=True, tag="startChild"):
    workflow: Name
    input: Payload = UNSET
    parallel_group: str | None = None


class CancelStep(Command, frozen=True, kw_only=True, tag="cancelStep"):
    """The body has given up the call at `seq`. Sent only to an operator that states
    `cancel-steps`."""


AnyAsked = ScheduleStep | RecordStep | StartTimer | WaitSignal | StartChild
"""What gets a place in history, at its `seq`."""

AnyCommand = AnyAsked | CancelStep


class DecisionStatus(StrEnum):
    CONTINUE = "continue"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    CONTINUED = "continuedAsNew"


class WorkflowDecision(Message, frozen=True, kw_only=True):
    """`ordered`: results were delivered in order, up to this one. Sent only to an operator that
    states `ordered-history`. `park`: it is the code that failed, not the run; only to one that
    states `park`. The status `continuedAsNew`, with the next `input` and the seqs of the signals in
    history that the body has not taken (`unread`), only to one that states `continue-as-new`.
    `kept`: by which worker the turn's history is kept, so that the next one may tell what is new;
    only to an operator that states `history-deltas`."""

    task_id: Name
    run_id: Name
    status: DecisionStatus
    commands: list[AnyCommand]
    output: Payload = UNSET
    error: Failure | None = None
    input: Payload = UNSET
    unread: list[Seq] | None = None
    ordered: Count | None = None
    park: bool | None = None
    kept: Name | None = None
