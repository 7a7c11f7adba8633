"""Python exceptions to failures on the wire, and back."""

import traceback

from msgspec import UNSET

from durable_worker.errors import (
    ChildFailedError,
    FailureError,
    FatalError,
    PayloadError,
    SideEffectFailedError,
    StepFailedError,
)
from durable_worker.protocol.base import Payload
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.payload import encode_payload, plain_json
from durable_worker.protocol.tasks import HistoryEvent, HistoryKind
from durable_worker.replay.definitions import failure_code

STACK_FRAMES = 20


def failure_of(error: BaseException, *, retryable: bool | None = None) -> Failure:
    """What travels for an exception; never raises, whatever the exception's own methods do."""
    if isinstance(error, (FatalError, PayloadError)):
        retryable = False
    return Failure(
        message=message_of(error),
        code=_code_of(error),
        retryable=retryable,
        stack=_stack_of(error),
        details=_details_of(error),
    )


def cancellation(error: BaseException | None) -> Failure:
    """What is told of a run that was cancelled; the notes are of compensations that failed."""
    notes: list[str] = getattr(error, "__notes__", [])
    return Failure(message="; ".join(["the run was cancelled", *notes]), code="cancelled")


def message_of(error: BaseException) -> str:
    try:
        text = str(error)
        text.encode()
    except Exception as broken:  # user exceptions may have a __str__ that fails
        return f"{type(error).__qualname__} (its text is unavailable: {type(broken).__qualname__})"
    return text or type(error).__qualname__


def _code_of(error: BaseException) -> str:
    code = _attribute(error, "code")
    is_usable = isinstance(code, str) and code and code.isprintable()
    return str(code) if is_usable else failure_code(type(error))


def _stack_of(error: BaseException) -> str | None:
    try:
        lines = traceback.format_exception(type(error), error, error.__traceback__, STACK_FRAMES)
        text = "".join(lines)
        text.encode()
    except Exception:  # formatting calls the exception's own __str__
        return None
    return text


def _attribute(error: BaseException, name: str) -> object:
    try:
        return getattr(error, name, None)
    except Exception:  # properties of user exceptions may raise anything
        return None


def _details_of(error: BaseException) -> Payload:
    details = _attribute(error, "details")
    if details is None:
        return UNSET
    try:
        return encode_payload(details, what="the details of the failure")
    except PayloadError:
        return encode_payload(type(details).__qualname__, what="the type of the details")


def error_of(event: HistoryEvent, name: str) -> FailureError:
    """The exception that a body sees for a failed operation."""
    failure = event.error or Failure(message="no reason was given")
    raised = ChildFailedError if event.kind is HistoryKind.CHILD else StepFailedError
    return raised(
        name,
        failure.message,
        seq=event.seq,
        code=failure.code,
        details=plain_json(failure.details),
        retryable=failure.retryable,
        remote_stack=failure.stack,
    )


def side_effect_error(event: HistoryEvent, name: str) -> SideEffectFailedError:
    """The exception that a body sees for a side effect that raised."""
    failure = event.error or Failure(message="no reason was given")
    return SideEffectFailedError(
        name,
        failure.message,
        seq=event.seq,
        code=failure.code,
        details=plain_json(failure.details),
        remote_stack=failure.stack,
    )
