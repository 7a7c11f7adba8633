"""What a workflow body works with."""

import sys
import uuid as uuids
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, TypeVar, overload

from durable_worker.errors import RegistrationError
from durable_worker.protocol.names import (
    DEFAULT_PARTITION,
    event_subject,
    published_value,
    update_signal,
)
from durable_worker.protocol.payload import PayloadDecoder, decoder_for, encode_payload
from durable_worker.protocol.tasks import WorkflowTask
from durable_worker.replay.arguments import (
    Timeout,
    caller,
    checked_name,
    limit_of,
    match_json,
    not_registered,
    seconds,
)
from durable_worker.replay.definitions import (
    Directory,
    Retry,
    StepContextBase,
    StepDefinition,
    retry_policy,
)
from durable_worker.replay.operations import Location
from durable_worker.replay.performing import (
    SignalWait,
    call_step,
    run_child,
    run_local_step,
    sleep,
    wait_signal,
)
from durable_worker.replay.turn import Replay
from durable_worker.replay.webhook import Webhook

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741
T = TypeVar("T")
C = TypeVar("C", bound=StepContextBase)

Operation = Coroutine[Any, Any, T]
Retries = int | Retry | None
Match = Mapping[str, Any] | None


class WorkflowContext:
    """Durable operations of one run. Deterministic: the same history gives the same answers.

    Operations that return a coroutine take effect when awaited or wrapped into a task, like any
    coroutine. Plain methods (`now`, `uuid`, `random`, `side_effect`, `set_event`,
    `webhook`) take effect at once.

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
            name = checked_name(step, "step")
        else:
            definition = self._step_definition(step)
            name, decoder = definition.name, definition.output_decoder
            retry = retry or definition.retry
        frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
        location = (frame.f_code, frame.f_lineno)
        journal = self._journal
        token = journal.next_token()
        coroutine = call_step(
            self._replay,
            token,
            name,
            input,
            partition=checked_name(partition, "partition") if partition else self._partition,
            retry=retry,
            decoder=decoder,
            location=location,
        )
        journal.called(token, coroutine, "step", name, location)
        return coroutine

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
        location, token = caller(), self._journal.next_token()
        coroutine = run_local_step(self._replay, token, definition, input, location=location)
        self._journal.called(token, coroutine, "local_step", definition.name, location)
        return coroutine

    # Time

    def sleep(self, duration: timedelta | float) -> Operation[None]:
        """Suspend the run for a duration (seconds if a number); the same as `asyncio.sleep`."""
        return self._sleep(seconds(duration), caller())

    def sleep_until(self, instant: datetime) -> Operation[None]:
        """Suspend the run until an aware datetime; returns at once if it has passed."""
        if instant.tzinfo is None:
            raise ValueError("ctx.sleep_until needs a datetime with a time zone")
        return self._sleep((instant - self.now()).total_seconds(), caller())

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
        self, name: str, *, timeout: Timeout = None, returns: type[T]
    ) -> Operation[T]: ...
    @overload
    def wait_signal(self, name: str, *, timeout: Timeout = None) -> Operation[Any]: ...
    def wait_signal(
        self, name: str, *, timeout: Timeout = None, returns: Any = None
    ) -> Operation[Any]:
        """Wait for a signal and return its payload, read as `returns`.

        A signal sent before the wait is kept and delivered. The name is global to an operator: put
        the run's or a business id into it. Raises `TimeoutError` once `timeout` (seconds if a
        number) is over; a signal that comes later goes to the body's next wait for the same name.
        """
        name = checked_name(name, "signal")
        wait = SignalWait(name, limit_of(timeout), decoder_for(returns))
        return self._wait("wait_signal", name, wait, caller())

    @overload
    def wait_update(
        self, name: str, *, timeout: Timeout = None, returns: type[T]
    ) -> Operation[T]: ...
    @overload
    def wait_update(self, name: str, *, timeout: Timeout = None) -> Operation[Any]: ...
    def wait_update(
        self, name: str, *, timeout: Timeout = None, returns: Any = None
    ) -> Operation[Any]:
        """Wait for an update of this run, and return its argument; else like `wait_signal`.

        A NestJS operator sends one by `engine.update(run_id, name, argument)`; to any other it is
        the signal `update:<run id>:<name>`.
        """
        signal = update_signal(self.run_id, checked_name(name, "update"))
        wait = SignalWait(signal, limit_of(timeout), decoder_for(returns))
        return self._wait("wait_update", name, wait, caller())

    @overload
    def wait_event(
        self, name: str, *, match: Match = None, timeout: Timeout = None, returns: type[T]
    ) -> Operation[T]: ...
    @overload
    def wait_event(
        self, name: str, *, match: Match = None, timeout: Timeout = None
    ) -> Operation[Any]: ...
    def wait_event(
        self, name: str, *, match: Match = None, timeout: Timeout = None, returns: Any = None
    ) -> Operation[Any]:
        """Wait for an event that anybody publishes to every run, and return its payload.

        With `match` only for one whose payload holds these values under these keys. It needs an
        operator with `engine.publishEvent` (NestJS). An event published before the operator has
        noted the wait may be missed. Raises `TimeoutError` like `wait_signal`.
        """
        name = checked_name(name, "event")
        subject = event_subject(name, match_json(match, name))
        wait = SignalWait(subject, limit_of(timeout), decoder_for(returns), is_event=True)
        return self._wait("wait_event", name, wait, caller())

    @overload
    def webhook(self, *, returns: type[T]) -> Webhook[T]: ...
    @overload
    def webhook(self) -> Webhook[Any]: ...
    def webhook(self, *, returns: Any = None) -> Webhook[Any]:
        """A callback of this run: give its `token` to a step, await it, and get what comes back.

        Whoever calls back sends a signal named like the token. It may come before the body awaits
        the webhook, which need not happen at all.
        """
        return Webhook(self._replay, decoder=decoder_for(returns), location=caller())

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
            name = checked_name(workflow, "workflow")
        else:
            definition = self._directory.workflow_of(workflow)
            if definition is None:
                raise RegistrationError(not_registered("workflow", workflow))
            name, decoder = definition.name, definition.output_decoder
        location, token = caller(), self._journal.next_token()
        coroutine = run_child(self._replay, token, name, input, decoder=decoder, location=location)
        self._journal.called(token, coroutine, "child", name, location)
        return coroutine

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

    def set_event(self, key: str, value: object) -> None:
        """Publish a value of this run for others to read (NestJS: `engine.getEvent(run_id, key)`).

        Recorded once; the last call for a key counts. Raises `PayloadError` for what has no JSON.
        """
        name = published_value(checked_name(key, "published value"))
        payload = encode_payload(value, what=f"the published value {key!r}")
        self._replay.record(name, lambda: payload)

    # Inside

    def _step_definition(self, step: Callable[..., Any]) -> StepDefinition:
        definition = self._directory.step_of(step)
        if definition is None:
            raise RegistrationError(not_registered("step", step))
        return definition

    def _wait(self, method: str, name: str, wait: SignalWait, location: Location) -> Operation[Any]:
        token = self._journal.next_token()
        coroutine = wait_signal(self._replay, token, wait, location=location)
        self._journal.called(token, coroutine, method, name, location)
        return coroutine

    def _sleep(self, seconds: float, location: Location) -> Operation[None]:
        token = self._journal.next_token()
        coroutine = sleep(self._replay, token, seconds)
        self._journal.called(token, coroutine, "sleep", "", location)
        return coroutine
