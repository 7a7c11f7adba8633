"""Broadcasts: heartbeats, cancellation, live events."""

from enum import StrEnum

from msgspec import UNSET, field

from durable_worker.protocol.base import Attempt, Message, Millis, Name, Payload, StepSeq
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.results import StepEvent


class Heartbeat(Message, frozen=True, kw_only=True):
    """Keeps a running step alive (`step_id` set) or a running turn (`step_id` absent)."""

    run_id: Name
    seq: StepSeq
    step_id: Name | None = None
    group: str


class EngineEventType(StrEnum):
    RUN_STARTED = "run.started"
    RUN_COMPLETED = "run.completed"
    RUN_FAILED = "run.failed"
    RUN_SUSPENDED = "run.suspended"
    RUN_BLOCKED = "run.blocked"
    STEP_STARTED = "step.started"
    STEP_COMPLETED = "step.completed"
    STEP_FAILED = "step.failed"
    STEP_PROGRESS = "step.progress"


class EngineEvent(Message, frozen=True, kw_only=True):
    """Something that happened to a run. `at`: epoch milliseconds; from an operator an ISO date."""

    type: EngineEventType
    run_id: Name
    workflow: str | None = None
    namespace: str | None = None
    seq: StepSeq | None = None
    name: str | None = None
    kind: str | None = None
    output: Payload = UNSET
    error: Failure | None = None
    duration_ms: float | None = None
    queue_ms: float | None = None
    event: StepEvent | None = None
    requires: list[str] | None = None
    diagnostics: Payload = UNSET
    at: Millis | str


class ControlMessage(Message, frozen=True, kw_only=True, tag_field="kind"):
    """`sender` is the instance it came from; a receiver drops what it sent itself."""


class CancelRun(ControlMessage, frozen=True, kw_only=True, tag="cancel"):
    """`seqs`: only the steps at these; those that come later undo what was done."""

    run_id: Name
    seqs: list[StepSeq] | None = None
    sender: str | None = field(default=None, name="from")


class GivenUp(Message, frozen=True, kw_only=True):
    """`attempt` and those before it: a later one is a step that is tried again."""

    seq: StepSeq
    attempt: Attempt


class CancelSteps(ControlMessage, frozen=True, kw_only=True, tag="cancelStep"):
    """A body has given these calls up: whoever works on them stops, nobody waits for the answers.
    An extension: who does not know it ignores it."""

    run_id: Name
    steps: list[GivenUp]
    sender: str | None = field(default=None, name="from")


class EventHappened(ControlMessage, frozen=True, kw_only=True, tag="event"):
    event: EngineEvent
    sender: str | None = field(default=None, name="from")


class RunEnqueued(ControlMessage, frozen=True, kw_only=True, tag="enqueued"):
    run_id: Name
    sender: str | None = field(default=None, name="from")


AnyControl = CancelRun | CancelSteps | EventHappened | RunEnqueued
