"""What a running step can say and ask."""

from collections.abc import Callable, Mapping
from contextvars import Context, ContextVar
from types import TracebackType
from typing import Any, Protocol

from durable_worker.errors import DurableError, PayloadError, StepCancelledError
from durable_worker.protocol.payload import encode_payload
from durable_worker.protocol.results import EventLevel, StepEvent, SubProcessStatus
from durable_worker.protocol.tasks import StepTask
from durable_worker.replay.definitions import StepContextBase
from durable_worker.replay.failures import message_of

MAX_EVENTS = 1_000
"""Events kept for the result of one attempt; later ones are streamed but not kept."""


class StepReporter(Protocol):
    """Where live reports go. Called from the event loop's thread or from a step's own thread."""

    def event(self, context: "StepContext", event: StepEvent) -> None: ...
    def heartbeat(self, context: "StepContext") -> None: ...


class StepContext(StepContextBase):
    """One attempt at one step.

    `run_id`, `step_id` (stable over attempts: use it as idempotency key towards other systems),
    `seq`, `name`, `attempt` (1-based), `traceparent` and `context` (what the caller passed along).
    """

    _dropped = 0
    _is_cancelled = False

    def __init__(self, task: StepTask, *, reporter: StepReporter, now: Callable[[], int]) -> None:
        self.run_id = task.run_id
        self.seq = task.seq
        self.name = task.name
        self.step_id = task.step_id
        self.attempt = task.attempt
        self.traceparent = task.traceparent
        self.context: Mapping[str, Any] = task.context or {}
        self.events: list[StepEvent] = []
        self._reporter = reporter
        self._now = now

    # Telling

    def debug(self, message: str, **data: object) -> None:
        self._log(EventLevel.DEBUG, message, data)

    def info(self, message: str, **data: object) -> None:
        """Add a line to the step's events: streamed live, and kept with the result.

        `data` is any JSON; what has no JSON form is replaced by its `repr`.
        """
        self._log(EventLevel.INFO, message, data)

    def warn(self, message: str, **data: object) -> None:
        self._log(EventLevel.WARN, message, data)

    def error(self, message: str, **data: object) -> None:
        self._log(EventLevel.ERROR, message, data)

    def heartbeat(self, details: object = None) -> None:
        """Say now that the step is alive (said every 5 s anyway); `details` become an event."""
        self._reporter.heartbeat(self)
        if details is not None:
            self._log(EventLevel.DEBUG, "heartbeat", {"details": details})

    def sub_process(self, name: str, *, group: str | None = None) -> "SubProcess":
        """A named part of the step with an outcome of its own: `async with` (or `with`) it.

        Leaving the block normally is `ok`, by an exception `failed` (the exception goes on),
        after `skip()` `skipped`.
        """
        return SubProcess(self, name, group)

    # Asking

    @property
    def cancelled(self) -> bool:
        """Whether the run was cancelled, or waits for this step no longer; the step decides itself
        when to stop."""
        return self._is_cancelled

    def raise_if_cancelled(self) -> None:
        """Raises `StepCancelledError` once `cancelled` is true."""
        if self._is_cancelled:
            raise StepCancelledError(
                f"run {self.run_id} was cancelled, or waits for this step no longer"
            )

    # What the worker uses

    def now(self) -> int:
        """Epoch milliseconds."""
        return self._now()

    def cancel(self) -> None:
        self._is_cancelled = True

    def emit(self, event: StepEvent) -> None:
        if len(self.events) < MAX_EVENTS:
            self.events.append(event)
        else:
            self._dropped += 1
        self._reporter.event(self, event)

    def final_events(self) -> list[StepEvent] | None:
        if not self._dropped:
            return self.events or None
        note = f"{self._dropped} further events were streamed but not kept"
        return [*self.events, StepEvent(at=self.now(), level=EventLevel.WARN, message=note)]

    def _log(self, level: EventLevel, message: str, data: Mapping[str, object]) -> None:
        self.emit(StepEvent(at=self.now(), level=level, message=_text(message), data=_data(data)))


class SubProcess:
    def __init__(self, context: StepContext, name: str, group: str | None) -> None:
        self._context = context
        self._name = name = _text(name)
        self._group = None if group is None else _text(group)
        self._phase: str | None = None
        self._skipped: str | None = None
        self._sub_id = f"{context.step_id}/{name}"

    def phase(self, name: str, **data: object) -> None:
        """Enter the next phase."""
        self._phase = _text(name)
        self._emit(EventLevel.INFO, name, data)

    def info(self, message: str, **data: object) -> None:
        self._emit(EventLevel.INFO, message, data)

    def warn(self, message: str, **data: object) -> None:
        self._emit(EventLevel.WARN, message, data)

    def skip(self, reason: str) -> None:
        """Make the outcome `skipped`; the block still runs to its end."""
        self._skipped = reason

    def _emit(
        self,
        level: EventLevel,
        message: str,
        data: Mapping[str, object],
        status: SubProcessStatus | None = None,
    ) -> None:
        self._context.emit(
            StepEvent(
                at=self._context.now(),
                level=level,
                message=_text(message),
                sub_id=self._sub_id,
                name=self._name,
                group=self._group,
                status=status,
                phase=self._phase,
                process=self._name,
                data=_data(data),
            )
        )

    def __enter__(self) -> "SubProcess":
        self._emit(EventLevel.INFO, "started", {})
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._emit(EventLevel.ERROR, message_of(error), {}, SubProcessStatus.FAILED)
        elif self._skipped is not None:
            self._emit(EventLevel.INFO, self._skipped, {}, SubProcessStatus.SKIPPED)
        else:
            self._emit(EventLevel.INFO, "done", {}, SubProcessStatus.OK)

    async def __aenter__(self) -> "SubProcess":
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, trace)


_current: ContextVar[StepContext] = ContextVar("durable_worker_current_step")


def current_step() -> StepContext:
    """The context of the step that this code runs in, from however deep in it.

    Raises `DurableError` outside of a step.
    """
    try:
        return _current.get()
    except LookupError:
        raise DurableError("current_step() was called outside of a running step") from None


def enter_step(context: StepContext) -> None:
    """Make `context` the answer of `current_step` in the current task and what it starts."""
    _current.set(context)


# What the body starts keeps its context: a name and an id, not the task with its history.
_current_turn: ContextVar[tuple[str, str]] = ContextVar("durable_worker_current_turn")


def enter_turn(workflow: str, run_id: str) -> None:
    """From now on what runs in the current task, and in what it starts, is of this turn."""
    _current_turn.set((workflow, run_id))


def turn_in(context: Context) -> tuple[str, str] | None:
    """Workflow and run of the turn that code in `context` belongs to."""
    return context.get(_current_turn)


def step_in(context: Context) -> StepContext | None:
    """The step that code in `context` belongs to; may be asked from another thread."""
    return context.get(_current)


def _text(value: object) -> str:
    """Text that fits a message, whatever was handed in (numbers, exceptions, odd file names)."""
    if isinstance(value, BaseException):
        value = message_of(value)
    return str(value).encode("utf-8", "backslashreplace").decode()


def _data(data: Mapping[str, object]) -> Any:
    if not data:
        return encode_payload(None, what="no data")
    try:
        return encode_payload(data, what="event data")
    except PayloadError:
        return encode_payload({key: repr(value) for key, value in data.items()}, what="event data")
