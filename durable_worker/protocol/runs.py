"""Starting runs and asking about them."""

from enum import StrEnum
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Raw

from durable_worker.protocol.base import (
    MAX_INTEGER,
    Count,
    Integer,
    Message,
    Name,
    Payload,
    StepSeq,
)
from durable_worker.protocol.control import EngineEvent
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.results import StepEvent


class RunStatus(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    SUSPENDED = "suspended"
    CANCELLING = "cancelling"
    BLOCKED = "blocked"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEAD = "dead"

    @property
    def is_terminal(self) -> bool:
        return self in _TERMINAL


_TERMINAL = frozenset({RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED, RunStatus.DEAD})


class StartRun(Message, frozen=True, kw_only=True):
    """Start a workflow. `run_id` is the idempotency key, `tenant` becomes the run's namespace."""

    tenant: str
    workflow: Name
    input: Payload = UNSET
    run_id: Name | None = None
    tags: list[str] | None = None
    search_attributes: dict[str, Any] | None = None


class RunQuery(Message, frozen=True, kw_only=True):
    """Filter for a listing; newest first. `search_attributes`: a run has each of these values, or
    has it in a list; an extension."""

    workflow: str | None = None
    status: RunStatus | None = None
    statuses: list[RunStatus] | None = None
    tag: str | None = None
    search_attributes: dict[str, Any] | None = None
    namespace: str | None = None
    limit: Annotated[int, Meta(ge=1, le=MAX_INTEGER)] | None = None
    offset: Count | None = None


class RequestBody(Message, frozen=True, kw_only=True, tag_field="kind"):
    """Base of everything that can be asked of an operator."""


class GetRunDetail(RequestBody, frozen=True, kw_only=True, tag="getRunDetail"):
    run_id: Name


class ListRuns(RequestBody, frozen=True, kw_only=True, tag="listRuns"):
    query: RunQuery


class RunFacets(RequestBody, frozen=True, kw_only=True, tag="runFacets"):
    query: RunQuery


class WorkerHealth(RequestBody, frozen=True, kw_only=True, tag="workerHealth"):
    pass


class CancelOptions(Message, frozen=True, kw_only=True):
    compensate: bool | None = None


class CancelRequest(RequestBody, frozen=True, kw_only=True, tag="cancel"):
    run_id: Name
    opts: CancelOptions | None = None


class RetryRun(RequestBody, frozen=True, kw_only=True, tag="retry"):
    run_id: Name


class ContinueRun(RequestBody, frozen=True, kw_only=True, tag="continue"):
    run_id: Name


class RetryWithInput(RequestBody, frozen=True, kw_only=True, tag="retryWithInput"):
    run_id: Name
    input: Payload = UNSET


class Redispatch(RequestBody, frozen=True, kw_only=True, tag="redispatch"):
    run_id: Name


class WaitingFor(RequestBody, frozen=True, kw_only=True, tag="waitingFor"):
    run_ids: list[Name]


class SignalRequest(RequestBody, frozen=True, kw_only=True, tag="signal"):
    """Deliver `payload` to whoever waits for `signal`. An extension: a v1 operator refuses it."""

    signal: Name
    payload: Payload = UNSET


class ListDeadLetters(RequestBody, frozen=True, kw_only=True, tag="deadLetters"):
    """Newest first; those older than `after`, a letter's id. An extension, like the next two."""

    limit: Annotated[int, Meta(ge=1, le=MAX_INTEGER)] | None = None
    after: Name | None = None
    run_id: Name | None = None


class GetDeadLetter(RequestBody, frozen=True, kw_only=True, tag="deadLetter"):
    id: Name


class RedriveDeadLetter(RequestBody, frozen=True, kw_only=True, tag="redriveDeadLetter"):
    id: Name


Reuse = Literal["reject", "return", "terminate"]
"""What a start does if its run id is taken (protocol/README.md, "Starts that are answered")."""


class StartRequest(RequestBody, frozen=True, kw_only=True, tag="startRun"):
    """A start that is answered, with a `StartedRun`. An extension, like the next one."""

    workflow: Name
    run_id: Name
    reuse: Reuse
    input: Payload = UNSET
    tags: list[str] | None = None
    search_attributes: dict[str, Any] | None = None


class StartedRun(Message, frozen=True, kw_only=True):
    """The run that a start has led to, and whether it has made it."""

    run_id: Name
    is_new: bool


class PageRuns(RequestBody, frozen=True, kw_only=True, tag="pageRuns"):
    """A page of a listing, answered with a `RunPage`. The query's `offset` does not count."""

    query: RunQuery
    after: Name | None = None


AnyRequest = (
    GetRunDetail
    | ListRuns
    | RunFacets
    | WorkerHealth
    | CancelRequest
    | RetryRun
    | ContinueRun
    | RetryWithInput
    | Redispatch
    | WaitingFor
    | SignalRequest
    | ListDeadLetters
    | GetDeadLetter
    | RedriveDeadLetter
    | StartRequest
    | PageRuns
)


class RunRequest(Message, frozen=True, kw_only=True):
    request_id: Name
    tenant: str
    body: AnyRequest


class RequestError(Message, frozen=True, kw_only=True):
    message: str
    code: str | None = None


class RequestResult(Message, frozen=True, kw_only=True):
    """`ok` with `data`, or not `ok` with `error`."""

    ok: bool
    data: Payload = UNSET
    error: RequestError | None = None

    def __post_init__(self) -> None:
        if not self.ok and self.error is None:
            raise ValueError("a result that is not `ok` states its `error`")


class RunReply(Message, frozen=True, kw_only=True):
    request_id: Name
    result: RequestResult


class TenantEvent(Message, frozen=True, kw_only=True):
    tenant: str
    event: EngineEvent


class RunRecord(Message, frozen=True, kw_only=True):
    """A run as an operator tells it in `RunDetail` and listings. Times are ISO 8601, UTC.

    `ordered`: what the last applied decision said; absent if its results are not told in order.
    """

    id: Name
    workflow: Name
    workflow_version: str
    status: RunStatus
    input: Payload = UNSET
    output: Payload = UNSET
    error: Failure | None = None
    namespace: str | None = None
    parent_run_id: str | None = None
    tags: list[str] | None = None
    search_attributes: dict[str, Any] | None = None
    wake_at: Integer | None = None
    recovery_attempts: Count | None = None
    ordered: Count | None = None
    created_at: str
    updated_at: str


class RunPage(Message, frozen=True, kw_only=True):
    """`next` asks for what follows; None: nothing does."""

    runs: list[RunRecord]
    next: Name | None = None


class TimelineEntry(Message, frozen=True, kw_only=True):
    """One checkpoint of a run: what was asked at `seq`, and how it stands."""

    run_id: Name
    seq: StepSeq
    name: str
    kind: str
    step_id: str
    status: str
    input: Payload = UNSET
    output: Payload = UNSET
    error: Failure | None = None
    attempts: Count
    worker_group: str | None = None
    events: list[StepEvent] | None = None
    wake_at: Integer | None = None
    parallel_group: str | None = None
    order: Count | None = None
    enqueued_at: str
    started_at: str | None = None
    finished_at: str | None = None


class RunDetail(Message, frozen=True, kw_only=True):
    run: RunRecord
    timeline: list[TimelineEntry]
    children: list[str]


NULL = Raw(b"null")
