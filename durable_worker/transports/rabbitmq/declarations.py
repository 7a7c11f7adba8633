"""Work queues that must exist: declared when first asked for and after every reconnect."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from durable_worker.errors import BrokerRefusedError, ConnectionLostError, TransportError
from durable_worker.protocol.names import Names
from durable_worker.transports.rabbitmq.lanes import Channel
from durable_worker.transports.rabbitmq.link import (
    Link,
    channel_of,
    pause,
    raise_if_cancelled,
)
from durable_worker.transports.rabbitmq.states import StateListener, TopologyRefused
from durable_worker.transports.rabbitmq.topology import declare_queue

RETRY_SECONDS = 0.5

DOUBT_SECONDS = 0.5
"""A queue that was deleted is not made anew at once: the broker has to tell its consumers first.
RabbitMQ 3.10 would take them over to the new queue, where they would get nothing."""


TURN_SECONDS = 1.5
"""How long one connection waits until another one has declared a queue: that one may hang."""


class Declarations:
    """The set of queues, and for each whether the current connection has declared it."""

    def __init__(self, names: Names, *, emit: StateListener) -> None:
        self._names = names
        self._emit = emit
        self._wanted: dict[str, asyncio.Future[None]] = {}
        self._declared: set[str] = set()
        self._refusal: TransportError | None = None
        self._wake = asyncio.Event()
        self._restored = asyncio.Event()
        self._turns: dict[str, asyncio.Lock] = {}

    async def declare_over(self, channel: Channel, queue: str) -> None:
        """One at a time: a broker says yes to the second while it still makes the queue for the
        first, and RabbitMQ 3.10 then drops the connection over which it is consumed.

        Raises `BrokerRefusedError`, `ConnectionLostError`; either way the channel is gone.
        """
        turn, has_turn = self._turns.setdefault(queue, asyncio.Lock()), False
        with suppress(TimeoutError):
            async with asyncio.timeout(TURN_SECONDS):
                has_turn = await turn.acquire()
        try:
            await declare_queue(channel, queue, self._names)
        finally:
            if has_turn:
                turn.release()

    async def ensure(self, queues: Sequence[str]) -> None:
        """Wait until these and the dead queue exist. Raises `BrokerRefusedError`."""
        if self._refusal is not None:
            raise self._refusal
        futures = [self._want(queue) for queue in (self._names.dead, *queues)]
        self._wake.set()
        for future in futures:
            await asyncio.shield(future)

    def doubt(self, queue: str) -> None:
        """A message came back from this queue: declare it again if it is one of ours."""
        if queue in self._wanted:
            loop = asyncio.get_running_loop()
            loop.call_later(DOUBT_SECONDS, self._declare_again, queue)

    def _declare_again(self, queue: str) -> None:
        self._declared.discard(queue)
        self._wake.set()

    async def restored(self) -> None:
        """Wait until this connection has declared what earlier ones had."""
        await self._restored.wait()

    def refuse(self, error: TransportError) -> None:
        self._refusal = error
        for future in self._wanted.values():
            if not future.done():
                _fail(future, error)

    async def serve(self, link: Link) -> None:
        self._declared.clear()
        try:
            while True:
                self._wake.clear()
                await self._declare_missing(link)
                raise_if_cancelled()
                self._restored.set()
                await self._wake.wait()
        finally:
            self._restored.clear()

    def _want(self, queue: str) -> asyncio.Future[None]:
        if queue not in self._wanted:
            self._wanted[queue] = asyncio.get_running_loop().create_future()
        return self._wanted[queue]

    async def _declare_missing(self, link: Link) -> None:
        while missing := [queue for queue in self._wanted if queue not in self._declared]:
            try:
                await self._declare(link, missing)
            except ConnectionLostError:
                await pause(RETRY_SECONDS)

    async def _declare(self, link: Link, queues: Sequence[str]) -> None:
        queue = queues[0]
        with suppress(BrokerRefusedError):
            async with channel_of(link) as channel:
                for queue in queues:
                    try:
                        await self.declare_over(channel, queue)
                    except BrokerRefusedError as error:
                        self._reject(queue, error)
                        raise
                    self._declared.add(queue)
                    if not self._wanted[queue].done():
                        self._wanted[queue].set_result(None)

    def _reject(self, queue: str, error: TransportError) -> None:
        future = self._wanted[queue]
        if future.done():
            # It existed before: keep the rest going and say so.
            self._declared.add(queue)
            self._emit(TopologyRefused(queue, str(error)))
            return
        del self._wanted[queue]
        _fail(future, error)


def _fail(future: asyncio.Future[None], error: TransportError) -> None:
    future.set_exception(error)
    # Read once: the waiter may have been cancelled meanwhile.
    future.exception()
