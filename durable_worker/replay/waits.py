"""Time, signals, and what else comes from outside while a body waits."""

import asyncio
import inspect
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar, overload

from durable_worker.errors import RegistrationError
from durable_worker.protocol.names import event_subject, published_value, update_signal
from durable_worker.protocol.payload import decoder_for
from durable_worker.replay.arguments import (
    Timeout,
    caller,
    checked_name,
    limit_of,
    match_json,
    seconds,
)
from durable_worker.replay.base import Operation
from durable_worker.replay.handles import ExternalTask, Webhook
from durable_worker.replay.operations import Location
from durable_worker.replay.performing import SignalWait, break_point, sleep, wait_signal
from durable_worker.replay.values import Values

T = TypeVar("T")

WaitMethod = Literal["wait_signal", "wait_update", "wait_event"]

Match = Mapping[str, Any] | None


class Waits(Values):
    def sleep(self, duration: timedelta | float) -> Operation[None]:
        """Suspend the run for a duration (seconds if a number); the same as `asyncio.sleep`."""
        return self._sleep(seconds(duration), caller())

    def sleep_until(self, instant: datetime) -> Operation[None]:
        """Suspend the run until an aware datetime; returns at once if it has passed."""
        if instant.tzinfo is None:
            raise ValueError("ctx.sleep_until needs a datetime with a time zone")
        return self._sleep((instant - self.now()).total_seconds(), caller())

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
        self,
        name: str,
        *,
        validate: Callable[[T], object] | None = None,
        timeout: Timeout = None,
        returns: type[T],
    ) -> Operation[T]: ...
    @overload
    def wait_update(
        self,
        name: str,
        *,
        validate: Callable[[Any], object] | None = None,
        timeout: Timeout = None,
    ) -> Operation[Any]: ...
    def wait_update(
        self,
        name: str,
        *,
        validate: Callable[[Any], object] | None = None,
        timeout: Timeout = None,
        returns: Any = None,
    ) -> Operation[Any]:
        """Wait for an update of this run, and return its argument; else like `wait_signal`.

        `validate` rejects an argument by raising an exception or returning False; one that does not
        fit `returns` is then rejected, too. The body goes on waiting, and the reason is published
        under the key `update-rejected:<name>`.

        A NestJS operator sends one by `engine.update(run_id, name, argument)`; to any other it is
        the signal `update:<run id>:<name>`.
        """
        signal = update_signal(self.run_id, checked_name(name, "update"))
        if inspect.iscoroutinefunction(validate):
            raise RegistrationError(f"the validator of update {name!r} must not be `async`")
        rejected_as = published_value(f"update-rejected:{name}")
        wait = SignalWait(
            signal,
            limit_of(timeout),
            decoder_for(returns),
            check=validate,
            rejected_as=rejected_as,
        )
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
        matched = match_json(match, name)
        subject = event_subject(name, matched)
        wait = SignalWait(subject, limit_of(timeout), decoder_for(returns), matched)
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
    def task(self, name: str, /, *, returns: type[T]) -> ExternalTask[T]: ...
    @overload
    def task(self, name: str, /) -> ExternalTask[Any]: ...
    def task(self, name: str, /, *, returns: Any = None) -> ExternalTask[Any]:
        """Work that somebody outside completes: have a step hand it out, then await the task.

        It is completed by the signal `task:<run id>:<name>`, which a NestJS operator sends by
        `engine.completeTask(run_id, name, value)` or `engine.failTask(run_id, name, error)`. It may
        come before the body awaits the task, which need not happen at all.
        """
        name = checked_name(name, "task")
        return ExternalTask(self._replay, name, decoder=decoder_for(returns), location=caller())

    def breakpoint(self, name: str | None = None, /) -> Operation[None]:
        """Suspend the run until somebody lets it go on, by the signal `bp:<run id>:<seq>`.

        `name` is for error messages.
        """
        location, token = caller(), self._journal.next_token()
        operation = break_point(self._replay, token, name, location=location)
        return self._called(token, operation, "breakpoint", name or "", location)

    @overload
    def on_signal(
        self, name: str, handler: Callable[[T], Any], /, *, returns: type[T]
    ) -> "asyncio.Task[None]": ...
    @overload
    def on_signal(self, name: str, handler: Callable[[Any], Any], /) -> "asyncio.Task[None]": ...
    def on_signal(
        self, name: str, handler: Callable[[Any], Any], /, *, returns: Any = None
    ) -> "asyncio.Task[None]":
        """Call `handler` beside the body for each signal, with its payload read as `returns`.

        `handler` may be `async def` and use this context. Signals are handled one after the other,
        in the order in which they come. Cancel what is returned to stop. An error in the handler,
        or a payload that does not fit, cancels the body and fails the run with that error; the end
        of the body ends the handler, wherever it is.
        """
        wait = SignalWait(checked_name(name, "signal"), None, decoder_for(returns))
        return self._start_handling(wait, handler, caller())

    # Inside

    def _start_handling(
        self, wait: SignalWait, handler: Callable[[Any], Any], location: Location
    ) -> "asyncio.Task[None]":
        handling = asyncio.ensure_future(self._handle_each(wait, handler, location))
        handling.add_done_callback(self._handled)
        return handling

    def _next_signal(self, wait: SignalWait, location: Location) -> Operation[Any]:
        return wait_signal(self._replay, self._journal.next_token(), wait, location=location)

    def _wait(
        self, method: WaitMethod, name: str, wait: SignalWait, location: Location
    ) -> Operation[Any]:
        token = self._journal.next_token()
        coroutine = wait_signal(self._replay, token, wait, location=location)
        self._journal.called(token, coroutine, method, name, location)
        return coroutine

    def _sleep(self, seconds: float, location: Location) -> Operation[None]:
        token = self._journal.next_token()
        coroutine = sleep(self._replay, token, seconds)
        self._journal.called(token, coroutine, "sleep", "", location)
        return coroutine

    async def _handle_each(
        self, wait: SignalWait, handler: Callable[[Any], Any], location: Location
    ) -> None:
        while True:
            handled = handler(await self._next_signal(wait, location))
            if inspect.isawaitable(handled):
                await handled

    def _handled(self, handling: "asyncio.Task[None]") -> None:
        error = None if handling.cancelled() else handling.exception()
        if error is not None:
            self._replay.interrupt(error)
