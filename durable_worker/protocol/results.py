"""Worker to operator: the answer to a step task, and what a step reports while it runs."""

from enum import StrEnum

from msgspec import UNSET

from durable_worker.protocol.base import Message, Millis, Name, Payload, Seq, StepSeq
from durable_worker.protocol.failure import Failure


class EventLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


class SubProcessStatus(StrEnum):
    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


class StepEvent(Message, frozen=True, kw_only=True):
    """A log line of a step, or the outcome of one of its sub-processes (`sub_id`, `status`)."""

    at: Millis
    level: EventLevel
    message: str
    sub_id: str | None = None
    name: str | None = None
    group: str | None = None
    status: SubProcessStatus | None = None
    phase: str | None = None
    process: str | None = None
    data: Payload = UNSET


class ResultStatus(StrEnum):
    COMPLETED = "completed"
    FAILED = "failed"


class StepResult(Message, frozen=True, kw_only=True, gc=False):
    run_id: Name
    seq: StepSeq
    step_id: Name
    status: ResultStatus
    output: Payload = UNSET
    error: Failure | None = None
    started_at: Millis | None = None
    events: list[StepEvent] | None = None


class StepPhase(StrEnum):
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


class WorkflowStepEvent(Message, frozen=True, kw_only=True):
    """Life of a locally run step, streamed while its turn is still running."""

    run_id: Name
    seq: Seq
    name: Name
    phase: StepPhase
    started_at: Millis
    finished_at: Millis | None = None
    output: Payload = UNSET
    error: Failure | None = None
    events: list[StepEvent] | None = None
    parallel_group: str | None = None
