"""Sends what transactions owe to workers: many at once, again until the broker takes it."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

from durable_worker.errors import (
    PayloadTooLargeError,
    TransportError,
    UnroutableError,
    UnsendableError,
)
from durable_worker.operator.log import log
from durable_worker.operator.messages import Outgoing, repeated
from durable_worker.transports.base import Envelope, PromptTransport, Told, Transport

SENDERS = 64
_FIRST_RETRY_SECONDS = 0.1
_LAST_RETRY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class DispatchEvents:
    """Whom the dispatcher tells: `on_sent`, `on_refused` (no retry can help), `on_astray` (an
    addition has not arrived, or that is not known), `is_wanted` asks before a retry whether the
    message still matters."""

    on_sent: Callable[[Outgoing], None]
    on_astray: Callable[[Outgoing], None]
    on_refused: Callable[[Outgoing, TransportError], None]
    is_wanted: Callable[[Outgoing], bool]


@runtime_checkable
class ImmediateTransport(Protocol):
    """A transport that has a message as soon as it is given it."""

    def put(self, queue: str, envelope: Envelope) -> None:
        """`send`, without waiting for anything."""
        ...


class Dispatcher:
    """`run` sends until it is cancelled; at-least-once, as the outbox demands."""

    def __init__(self, transport: Transport, events: DispatchEvents) -> None:
        self._transport = transport
        self._put = transport.put if isinstance(transport, ImmediateTransport) else None
        self._post = transport.post if isinstance(transport, PromptTransport) else None
        self._events = events
        self._queue: asyncio.Queue[tuple[Outgoing, int]] = asyncio.Queue()
        self._declared: set[str] = set()
        self._unfinished = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def post(self, messages: Iterable[Outgoing]) -> None:
        for each in messages:
            self._unfinished += 1
            if each.queue not in self._declared and not each.is_addition:
                self._queue.put_nowait((each, 0))
            elif self._put is not None:
                self._put_now(each, self._put)
            elif self._post is None or not self._post_now(each, self._post):
                self._queue.put_nowait((each, 0))
        if self._unfinished:
            self._idle.clear()

    def _put_now(self, message: Outgoing, put: Callable[[str, Envelope], None]) -> None:
        try:
            put(message.queue, message.envelope)
        except TransportError as error:
            self._failed(message, 0, error)
        else:
            self._sent(message)

    def _post_now(self, message: Outgoing, post: Callable[[str, Envelope, Told], bool]) -> bool:
        """False if it cannot go out at once."""
        try:
            return post(message.queue, message.envelope, partial(self._told, message))
        except TransportError as error:
            self._failed(message, 0, error)
            return True

    def _told(self, message: Outgoing, error: TransportError | None) -> None:
        if error is None:
            self._sent(message)
        else:
            self._failed(message, 0, error)

    async def drained(self) -> None:
        """Return when nothing is left to send."""
        await self._idle.wait()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as senders:
            for _ in range(SENDERS):
                senders.create_task(self._send_all())

    async def _send_all(self) -> None:
        while True:
            # In a call of its own: a name here would hold the last message while there is no next.
            await self._send_next(*await self._queue.get())

    async def _send_next(self, message: Outgoing, failures: int) -> None:
        if failures and not self._events.is_wanted(message):
            self._sent(message)
            return
        try:
            await self._send(repeated(message) if failures else message)
        except TransportError as error:
            self._failed(message, failures, error)
        else:
            self._sent(message)

    def _failed(self, message: Outgoing, failures: int, error: TransportError) -> None:
        if message.is_addition:
            log.debug("addition_astray", run_id=message.row.run_id, error=str(error))
            self._events.on_astray(message)
            self._finish_one()
        elif isinstance(error, (PayloadTooLargeError, UnsendableError)):
            self._events.on_refused(message, error)
            self._finish_one()
        else:
            self._try_later(message, failures + 1, error)

    async def _send(self, message: Outgoing) -> None:
        if message.queue not in self._declared and not message.is_addition:
            await self._transport.declare([message.queue])
            self._declared.add(message.queue)
        await self._transport.send(message.queue, message.envelope)

    def _try_later(self, message: Outgoing, failures: int, error: TransportError) -> None:
        if isinstance(error, UnroutableError):
            self._declared.discard(message.queue)
        delay = min(_LAST_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 2 ** min(failures - 1, 10))
        log.warning(
            "dispatch_failed",
            run_id=message.row.run_id,
            seq=message.row.seq,
            queue=message.queue,
            error=str(error),
            retry_in_seconds=delay,
        )
        loop = asyncio.get_running_loop()
        loop.call_later(delay, self._queue.put_nowait, (message, failures))

    def _sent(self, message: Outgoing) -> None:
        self._events.on_sent(message)
        self._finish_one()

    def _finish_one(self) -> None:
        self._unfinished -= 1
        if not self._unfinished:
            self._idle.set()
