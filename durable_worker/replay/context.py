"""What a workflow body works with."""

import asyncio
import sys
import uuid as uuids
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, TypeVar, overload

from durable_worker.errors import RegistrationError
from durable_worker.protocol.names import DEFAULT_PARTITION
from durable_worker.protocol.payload import PayloadDecoder, decoder_for, encode_payload
from durable_worker.protocol.tasks import WorkflowTask
from durable_worker.replay.definitions import (
    Directory,
    Retry,
    StepContextBase,
    StepDefinition,
    location_of,
    retry_policy,
)
from durable_worker.replay.operations import Location
from durable_worker.replay.performing import call_step, run_child, run_local_step, wait_signal
from durable_worker.replay.turn import Replay

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741
T = TypeVar("T")
C = TypeVar("C", bound=StepContextBase)

Operation = Coroutine[Any, Any, T]
Retries = int | Retry | None


class WorkflowContext:
    """Durable operations of one run. Deterministic: the same history gives the same answers.

    Operations that return a coroutine take effect when awaited or wrapped into a task, like any
    coroutine. Plain methods (`now`, `uuid`, `random`, `side_effect`) answer at once.

    `run_id`, `workflow` and `version` identify the run.
    """

    def __init__(
        self,
        replay: Replay,
        task: WorkflowTask,
        directory: Directory,
        *,
        partition: str | None = None,
    ) -> None:
        self._replay = replay
        self._journal = replay.journal
        self._directory = directory
        self._partition = partition or DEFAULT_PARTITION
        self._random: Random | None = None
        self.run_id = task.run_id
        self.workflow = task.workflow
        self.version = task.workflow_version

    # Steps

    @overload
    def step(
        self,
        step: Callable[[I, C], Awaitable[O]] | Callable[[I], Awaitable[O]],
        input: I,
        /,
        *,
        retries: Retries = None,
        partition: str | None = None,
    ) -> Operation[O]: ...
    @overload
    def step(
        self,
        step: Callable[[C], Awaitable[O]] | Callable[[], Awaitable[O]],
        /,
        *,
        retries: Retries = None,
        partition: str | None = None,
    ) -> Operation[O]: ...
    @overload
    def step(
        self,
        step: Callable[[I, C], O] | Callable[[I], O],
        input: I,
        /,
        *,
        retries: Retries = None,
        partition: str | None = None,
    ) -> Operation[O]: ...
    @overload
    def step(
        self,
        step: Callable[[C], O] | Callable[[], O],
        /,
        *,
        retries: Retries = None,
        partition: str | None = None,
    ) -> Operation[O]: ...
    @overload
    def step(
        self,
        step: str,
        input: object = None,
        /,
        *,
        returns: type[T],
        retries: Retries = None,
        partition: str | None = None,
    ) -> Operation[T]: ...
    @overload
    def step(
        self,
        step: str,
        input: object = None,
        /,
        *,
        retries: Retries = None,
        partition: str | None = None,
    ) -> Operation[Any]: ...
    def step(
        self,
        step: Any,
        input: object = None,
        /,
        *,
        returns: Any = None,
        retries: Retries = None,
        partition: str | None = None,
    ) -> Operation[Any]:
        """Run a step on whichever worker serves it, and return its output.

        `step` is a function registered on this worker, or the name of one that is served elsewhere;
        then `returns` says what to read the output as. `retries` replaces the policy of the
        decorator: a number of further attempts after the first, or a `Retry`.

        Raises `StepFailedError` after the last attempt, `PayloadError` if the input has no JSON
        form or the output does not fit, `RegistrationError` for an unregistered function.
        """
        retry = retry_policy(retries)
        decoder = decoder_for(returns)
        if isinstance(step, str):
            name = step
        else:
            definition = self._step_definition(step)
            name, decoder = definition.name, definition.output_decoder
            retry = retry or definition.retry
        location = _caller()
        return self._operation(
            f"ctx.step({name!r}, ...)",
            location,
            call_step(
                self._replay,
                name,
                input,
                partition=partition or self._partition,
                retry=retry,
                decoder=decoder,
                location=location,
            ),
        )

    @overload
    def local_step(
        self, step: Callable[[I, C], Awaitable[O]] | Callable[[I], Awaitable[O]], input: I, /
    ) -> Operation[O]: ...
    @overload
    def local_step(
        self, step: Callable[[C], Awaitable[O]] | Callable[[], Awaitable[O]], /
    ) -> Operation[O]: ...
    @overload
    def local_step(
        self, step: Callable[[I, C], O] | Callable[[I], O], input: I, /
    ) -> Operation[O]: ...
    @overload
    def local_step(self, step: Callable[[C], O] | Callable[[], O], /) -> Operation[O]: ...
    def local_step(self, step: Any, input: object = None, /) -> Operation[Any]:
        """Run a registered step inside this turn, in this process, and record its output.

        Saves the trip over the broker for short work; a crash before the turn ends runs it again.
        All local steps that run at one time end before the body sees the first result.
        """
        definition = self._step_definition(step)
        location = _caller()
        return self._operation(
            f"ctx.local_step({definition.name!r}, ...)",
            location,
            run_local_step(self._replay, definition, input, location=location),
        )

    # Time

    def sleep(self, duration: timedelta | float) -> Operation[None]:
        """Suspend the run for a duration (seconds if a number); the same as `asyncio.sleep`."""
        location = _caller()
        return self._operation("ctx.sleep(...)", location, asyncio.sleep(_seconds(duration)))

    def sleep_until(self, instant: datetime) -> Operation[None]:
        """Suspend the run until an aware datetime; returns at once if it has passed."""
        if instant.tzinfo is None:
            raise ValueError("ctx.sleep_until needs a datetime with a time zone")
        return self.sleep(instant - self.now())

    def now(self) -> datetime:
        """The time (UTC) at which the body got here first."""
        now_ms = self._replay.now_ms
        name = f"now#{self._journal.next_seq}"
        event = self._replay.record(name, lambda: encode_payload(now_ms, what="the time"))
        recorded = decoder_for(int).decode(event.output, what="the recorded time")
        return datetime.fromtimestamp(recorded / 1000, UTC)

    # Signals and children

    @overload
    def wait_signal(
        self, name: str, *, timeout: timedelta | float | None = None, returns: type[T]
    ) -> Operation[T]: ...
    @overload
    def wait_signal(
        self, name: str, *, timeout: timedelta | float | None = None
    ) -> Operation[Any]: ...
    def wait_signal(
        self, name: str, *, timeout: timedelta | float | None = None, returns: Any = None
    ) -> Operation[Any]:
        """Wait for a signal and return its payload, read as `returns`.

        A signal sent before the wait is kept and delivered. The name is global to an operator: put
        the run's or a business id into it. Raises `TimeoutError` once `timeout` (seconds if a
        number) is over; a signal that comes later goes to the body's next wait for the same name.
        """
        location = _caller()
        limit = None if timeout is None else timedelta(seconds=_seconds(timeout))
        return self._operation(
            f"ctx.wait_signal({name!r})",
            location,
            wait_signal(
                self._replay, name, timeout=limit, decoder=decoder_for(returns), location=location
            ),
        )

    @overload
    def child(
        self, workflow: "Callable[[WorkflowContext, I], Awaitable[O]]", input: I, /
    ) -> Operation[O]: ...
    @overload
    def child(self, workflow: "Callable[[WorkflowContext], Awaitable[O]]", /) -> Operation[O]: ...
    @overload
    def child(
        self, workflow: str, input: object = None, /, *, returns: type[T]
    ) -> Operation[T]: ...
    @overload
    def child(self, workflow: str, input: object = None, /) -> Operation[Any]: ...
    def child(
        self, workflow: Any, input: object = None, /, *, returns: Any = None
    ) -> Operation[Any]:
        """Run another workflow, in any language, and return its output.

        Its run id is `<run id>.child.<seq>`. Raises `ChildFailedError` if it fails or is cancelled.
        """
        decoder: PayloadDecoder[Any] = decoder_for(returns)
        if isinstance(workflow, str):
            name = workflow
        else:
            definition = self._directory.workflow_of(workflow)
            if definition is None:
                raise RegistrationError(_not_registered("workflow", workflow))
            name, decoder = definition.name, definition.output_decoder
        location = _caller()
        return self._operation(
            f"ctx.child({name!r}, ...)",
            location,
            run_child(self._replay, name, input, decoder=decoder, location=location),
        )

    # Values decided once

    @property
    def random(self) -> Random:
        """A generator seeded by the run id: the same numbers on every replay."""
        if self._random is None:
            self._random = Random(self.run_id)
        return self._random

    def uuid(self) -> uuids.UUID:
        """A random (version 4) UUID, the same on every replay."""
        return uuids.UUID(int=self.random.getrandbits(128), version=4)

    @overload
    def side_effect(self, produce: Callable[[], T], /, *, returns: type[T]) -> T: ...
    @overload
    def side_effect(self, produce: Callable[[], T], /) -> T: ...
    def side_effect(self, produce: Callable[[], Any], /, *, returns: Any = None) -> Any:
        """Call `produce` once, record what it returns, and return the recorded value ever after.

        For short synchronous reads of the outside world (a setting, a feature flag). The value goes
        through JSON also the first time; `returns` says what to read it as.
        """
        event = self._replay.record(
            "sideEffect", lambda: encode_payload(produce(), what="the value of a side effect")
        )
        return decoder_for(returns).decode(event.output, what="the value of a side effect")

    # Inside

    def _step_definition(self, step: Callable[..., Any]) -> StepDefinition:
        definition = self._directory.step_of(step)
        if definition is None:
            raise RegistrationError(_not_registered("step", step))
        return definition

    def _operation(self, what: str, location: Location, coroutine: Operation[T]) -> Operation[T]:
        token = self._journal.next_token()
        tracked = self._started(token, coroutine)
        self._journal.called(token, (tracked, coroutine), what, location)
        return tracked

    async def _started(self, token: int, coroutine: Operation[T]) -> T:
        self._journal.started(token)
        return await coroutine


def _seconds(duration: timedelta | float) -> float:
    return duration.total_seconds() if isinstance(duration, timedelta) else duration


def _caller() -> Location:
    frame = sys._getframe(2)  # pyright: ignore[reportPrivateUsage]
    return Location(frame.f_code.co_filename, frame.f_lineno)


def _not_registered(noun: str, function: Callable[..., Any]) -> str:
    return (
        f"{getattr(function, '__qualname__', function)!r} ({location_of(function)}) is not "
        f"registered as a {noun} on this worker; decorate it with @worker.{noun}(...), or pass the "
        f"name of a {noun} that another worker serves"
    )
