"""Operations that are outstanding from their creation on, awaited or not."""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, Protocol, TypeVar

import msgspec
from msgspec import Struct

from durable_worker.errors import TaskFailedError
from durable_worker.protocol.base import Payload
from durable_worker.protocol.commands import StartChild, WaitSignal
from durable_worker.protocol.names import child_run_id, task_signal, webhook_signal
from durable_worker.protocol.payload import PayloadDecoder, plain_json
from durable_worker.protocol.tasks import HistoryEvent, HistoryKind
from durable_worker.replay.arguments import Timeout, caller, limit_of
from durable_worker.replay.failures import error_of
from durable_worker.replay.operations import Location, Requested
from durable_worker.replay.turn import Replay

T = TypeVar("T")


class AroundWait(Protocol):
    """Makes the wait for an opened operation; `perform` waits for so many seconds.

    `name` is what the operation is about, `location` who waits.
    """

    def __call__(
        self,
        name: str,
        limit: float | None,
        location: Location,
        perform: Callable[[float | None], Coroutine[Any, Any, Any]],
    ) -> Coroutine[Any, Any, Any]: ...


class Opened(Generic[T]):
    """Any number of waits for one operation.

    The operation is outstanding before anything waits for it: so the operator knows of it before
    any step that was told of it runs, and the rule that decides what an idle point delivers
    (protocol/README.md, "Markers") holds for it as for any other operation. Nobody waits for the
    future itself but through a shield, so a wait that is given up leaves it as it is.
    """

    def __init__(
        self,
        replay: Replay,
        operation: Requested,
        convert: Callable[[HistoryEvent], T],
        *,
        method: str,
        name: str,
        around: "AroundWait | None",
    ) -> None:
        self._replay = replay
        self._convert = convert
        self._method = method
        self._name = name
        self._around = around
        self._resolved = replay.waiting.open(operation)

    def wait(self, timeout: Timeout, location: Location) -> Coroutine[Any, Any, T]:
        journal, limit = self._replay.journal, limit_of(timeout)
        if self._around is not None:
            return self._around(self._name, limit, location, self._begin)
        token = journal.next_token()
        coroutine = self._wait(token, limit)
        journal.called(token, coroutine, self._method, "", location)
        return coroutine

    def _begin(self, limit: float | None) -> Coroutine[Any, Any, T]:
        return self._wait(self._replay.journal.next_token(), limit)

    async def _wait(self, token: int, limit: float | None) -> T:
        await self._replay.waiting.begin(token)
        async with asyncio.timeout(limit):
            event: HistoryEvent = await asyncio.shield(self._resolved)
        self._replay.journal.taken.add(event.seq)
        return self._convert(event)


class Webhook(Generic[T]):
    """A signal of this run alone. Hand `token` to whoever shall call back, then await the webhook.

    It is kept from its creation on, so a callback may come before anything awaits it.
    """

    def __init__(
        self,
        replay: Replay,
        *,
        decoder: PayloadDecoder[T],
        location: Location,
        around: AroundWait | None = None,
    ) -> None:
        seq = replay.journal.take_seq()
        self.token = token = webhook_signal(replay.run_id, seq)
        self._opened = Opened(
            replay,
            _signal_wait(seq, token, location),
            lambda event: decoder.decode(event.output, what=f"the payload of webhook {token!r}"),
            method="webhook().wait",
            name=token,
            around=around,
        )

    def wait(self, *, timeout: Timeout = None) -> Coroutine[Any, Any, T]:
        """The payload of the callback; any number of waits get the same.

        Raises `TimeoutError` once `timeout` (seconds if a number) is over; a later wait still gets
        a callback that comes late.
        """
        return self._opened.wait(timeout, caller())

    def __await__(self) -> Generator[Any, Any, T]:
        return self._opened.wait(None, caller()).__await__()


class ChildHandle(Generic[T]):
    """A child workflow that was started. Await it, or `result()`, for its output.

    It goes on whether or not anything awaits it, and also after the end of this run. `run_id` is
    known at once.
    """

    def __init__(
        self,
        replay: Replay,
        name: str,
        value: Payload,
        decoder: PayloadDecoder[T],
        at: Location,
        *,
        around: AroundWait | None = None,
    ) -> None:
        seq = replay.journal.take_seq()
        self.run_id = child_run_id(replay.run_id, seq)
        self.workflow = name

        def output_of(event: HistoryEvent) -> T:
            if event.error is not None:
                raise error_of(event, name)
            return decoder.decode(event.output, what=f"the output of child workflow {name!r}")

        request = StartChild(seq=seq, workflow=name, input=value)
        operation = Requested(seq, HistoryKind.CHILD, name, at, request=request)
        self._opened = Opened(
            replay,
            operation,
            output_of,
            method="start_child().result",
            name=name,
            around=around,
        )
        replay.waiting.promised.append(seq)

    def result(self, *, timeout: Timeout = None) -> Coroutine[Any, Any, T]:
        """The output of the child; any number of waits get the same.

        Raises `ChildFailedError` if it fails or is cancelled, `TimeoutError` once `timeout`
        (seconds if a number) is over; the child goes on.
        """
        return self._opened.wait(timeout, caller())

    def __await__(self) -> Generator[Any, Any, T]:
        return self._opened.wait(None, caller()).__await__()


class _Completion(Struct):
    """What completes a task: the payload that `engine.completeTask` and `failTask` send."""

    ok: bool = True
    value: msgspec.Raw = msgspec.Raw(b"null")
    error: msgspec.Raw = msgspec.Raw(b"null")


class ExternalTask(Generic[T]):
    """Work that somebody outside completes. Hand `token` out, or let them derive it; then await.

    It is completed by the signal `token` with `{"ok": true, "value": ...}`, and failed by it with
    `{"ok": false, "error": ...}`: what `engine.completeTask(run_id, name, value)` and
    `engine.failTask(run_id, name, error)` of a NestJS operator send.
    """

    def __init__(
        self,
        replay: Replay,
        name: str,
        *,
        decoder: PayloadDecoder[T],
        location: Location,
        around: AroundWait | None = None,
    ) -> None:
        seq = replay.journal.take_seq()
        self.name = name
        self.token = token = task_signal(replay.run_id, name)
        self._opened = Opened(
            replay,
            _signal_wait(seq, token, location),
            lambda event: _value_of(event, name, decoder),
            method="task().wait",
            name=name,
            around=around,
        )

    def wait(self, *, timeout: Timeout = None) -> Coroutine[Any, Any, T]:
        """The value that the task was completed with; any number of waits get the same.

        Raises `TaskFailedError` if it was failed, `TimeoutError` once `timeout` (seconds if a
        number) is over; a later wait still gets what comes late.
        """
        return self._opened.wait(timeout, caller())

    def __await__(self) -> Generator[Any, Any, T]:
        return self._opened.wait(None, caller()).__await__()


_completions: PayloadDecoder[_Completion] = PayloadDecoder(_Completion)


def _value_of(event: HistoryEvent, name: str, decoder: PayloadDecoder[T]) -> T:
    completion = _completions.decode(event.output, what=f"the completion of task {name!r}")
    if completion.ok:
        return decoder.decode(completion.value, what=f"the value of task {name!r}")
    reason = plain_json(completion.error)
    fields: dict[str, Any] = reason if isinstance(reason, dict) else {"message": reason}  # pyright: ignore[reportUnknownVariableType]
    code = fields.get("code")
    raise TaskFailedError(
        name,
        str(fields.get("message") or "no reason was given"),
        seq=event.seq,
        code=code if isinstance(code, str) else None,
        details=fields.get("details"),
    )


def _signal_wait(seq: int, token: str, location: Location) -> Requested:
    request = WaitSignal(seq=seq, signal=token)
    return Requested(seq, HistoryKind.SIGNAL, token, location, request=request)
