"""Bytes to structs and back, with an error that names the field."""

from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import Any, Generic, TypeGuard, TypeVar, cast

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, structs

from durable_worker.errors import ProtocolError
from durable_worker.protocol.base import MAX_INTEGER
from durable_worker.protocol.commands import WorkflowDecision
from durable_worker.protocol.control import AnyControl, Heartbeat
from durable_worker.protocol.descriptor import Who, WorkerAnnouncement, WorkerBeat
from durable_worker.protocol.results import StepResult, WorkflowStepEvent
from durable_worker.protocol.runs import RunReply, RunRequest, StartRun, TenantEvent
from durable_worker.protocol.tasks import StepTask, WorkflowTask

M = TypeVar("M")


class MessageType(StrEnum):
    """The AMQP `type` property of every message."""

    STEP_TASK = "step-task"
    STEP_RESULT = "step-result"
    WORKFLOW_TASK = "workflow-task"
    WORKFLOW_DECISION = "workflow-decision"
    STEP_EVENT = "step-event"
    START_RUN = "start-run"
    RUN_REQUEST = "run-request"
    RUN_REPLY = "run-reply"
    TENANT_EVENT = "tenant-event"
    CONTROL = "control"
    HEARTBEAT = "heartbeat"
    WORKER_BEAT = "worker-beat"
    WORKER_DESCRIPTOR = "worker-descriptor"
    WHO = "who"


class MessageCodec(Generic[M]):
    """Reads one type of message."""

    def __init__(self, message_type: MessageType, struct: type[M]) -> None:
        self.message_type = message_type
        self._decoder = msgspec.json.Decoder(struct)

    def decode(self, body: bytes) -> M:
        """Raises `ProtocolError` that names the offending field."""
        try:
            if not body.isascii():
                body.decode()  # payloads and unknown keys are passed over unread
            return self._decoder.decode(body)
        except RecursionError as error:
            raise ProtocolError(self.message_type, "it is nested too deeply") from error
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ProtocolError(self.message_type, str(error)) from error


STEP_TASK = MessageCodec(MessageType.STEP_TASK, StepTask)
STEP_RESULT = MessageCodec(MessageType.STEP_RESULT, StepResult)
WORKFLOW_TASK = MessageCodec(MessageType.WORKFLOW_TASK, WorkflowTask)
WORKFLOW_DECISION = MessageCodec(MessageType.WORKFLOW_DECISION, WorkflowDecision)
STEP_EVENT = MessageCodec(MessageType.STEP_EVENT, WorkflowStepEvent)
START_RUN = MessageCodec(MessageType.START_RUN, StartRun)
RUN_REQUEST = MessageCodec(MessageType.RUN_REQUEST, RunRequest)
RUN_REPLY = MessageCodec(MessageType.RUN_REPLY, RunReply)
TENANT_EVENT = MessageCodec(MessageType.TENANT_EVENT, TenantEvent)
CONTROL: MessageCodec[AnyControl] = MessageCodec(MessageType.CONTROL, AnyControl)  # type: ignore[arg-type]
HEARTBEAT = MessageCodec(MessageType.HEARTBEAT, Heartbeat)
WORKER_BEAT = MessageCodec(MessageType.WORKER_BEAT, WorkerBeat)
WORKER_DESCRIPTOR = MessageCodec(MessageType.WORKER_DESCRIPTOR, WorkerAnnouncement)
WHO = MessageCodec(MessageType.WHO, Who)

encode: Callable[[Struct], bytes] = msgspec.json.Encoder().encode


class _TaskShape(Struct):
    workflow: Raw | UnsetType = UNSET
    history: Raw | UnsetType = UNSET


_shape_decoder = msgspec.json.Decoder(_TaskShape)


def decode_task(body: bytes, *, message_type: str | None = None) -> StepTask | WorkflowTask:
    """Read what lies on a task queue. Raises `ProtocolError`.

    `message_type` is the `type` property; without it the shape decides: a string `workflow` and a
    list `history` make a `WorkflowTask`, anything else is a `StepTask`.
    """
    match message_type:
        case MessageType.WORKFLOW_TASK:
            return WORKFLOW_TASK.decode(body)
        case MessageType.STEP_TASK:
            return STEP_TASK.decode(body)
        case None:
            return WORKFLOW_TASK.decode(body) if _looks_like_turn(body) else STEP_TASK.decode(body)
        case _:
            raise ProtocolError(message_type, "its type does not belong on a task queue")


def _looks_like_turn(body: bytes) -> bool:
    try:
        shape = _shape_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return _starts(shape.workflow, b'"') and _starts(shape.history, b"[")


def _starts(value: Raw | UnsetType, first: bytes) -> bool:
    return not isinstance(value, UnsetType) and bytes(value).lstrip().startswith(first)


class Addressee(Struct, frozen=True, kw_only=True):
    """Whom a message that cannot be understood as a whole would have concerned."""

    run_id: str
    seq: int | None = None
    step_id: str | None = None
    task_id: str | None = None


class _Named(Struct, rename="camel"):
    """Where a message says whom it concerns, each for itself, since any may be out of shape."""

    run_id: Raw = Raw()
    seq: Raw = Raw()
    step_id: Raw = Raw()
    task_id: Raw = Raw()


_named_decoder = msgspec.json.Decoder(_Named)


def addressee_of(body: bytes) -> Addressee | None:
    """What a malformed task, result or decision still names; None if it names no step or turn."""
    try:
        named = _named_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        from durable_worker.protocol.salvage import top_level

        named = _Named(**top_level(body, _Named.__struct_encode_fields__, _Named.__struct_fields__))
    run_id, seq = _text(named.run_id), _integer(named.seq)
    step_id, task_id = _text(named.step_id), _text(named.task_id)
    if not run_id:
        return None
    if task_id:
        return Addressee(run_id=run_id, task_id=task_id)
    if seq is not None:
        return Addressee(run_id=run_id, seq=seq, step_id=step_id or f"{run_id}:{seq}")
    return None


def _text(raw: Raw) -> str | None:
    return _value(raw, str)


def _integer(raw: Raw) -> int | None:
    number = _value(raw, int)
    return None if number is None or abs(number) > MAX_INTEGER else number


def _value(raw: Raw, kind: type[M]) -> M | None:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


class Announcer(Struct, frozen=True, kw_only=True):
    """Whose beat or announcement could not be understood, and which required keys it lacks."""

    instance_id: str | None
    missing: list[str]


def announcer_of(body: bytes, *, message_type: str | None) -> Announcer:
    """What a malformed `worker-beat` or `worker-descriptor` still tells."""
    try:
        fields = msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Announcer(instance_id=None, missing=[])
    is_descriptor = message_type == MessageType.WORKER_DESCRIPTOR
    named = fields.get("descriptor") if is_descriptor else fields
    instance_id = (
        cast("dict[str, Any]", named).get("instanceId") if isinstance(named, dict) else None
    )
    struct = WorkerAnnouncement if is_descriptor else WorkerBeat
    return Announcer(
        instance_id=instance_id if isinstance(instance_id, str) else None,
        missing=list(_missing(struct, fields)),
    )


def _missing(struct: type[Struct], fields: dict[str, Any], path: str = "") -> Iterator[str]:
    for field in structs.fields(struct):
        key, value = f"{path}{field.encode_name}", fields.get(field.encode_name)
        if value is None:
            if field.required:
                yield key
        elif isinstance(value, dict) and _is_struct(field.type):
            yield from _missing(field.type, cast("dict[str, Any]", value), f"{key}.")


def _is_struct(kind: Any) -> TypeGuard[type[Struct]]:
    return isinstance(kind, type) and issubclass(kind, Struct)
