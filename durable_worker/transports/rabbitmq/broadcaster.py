"""Messages to everybody who listens now: unconfirmed, and lost while the broker is away."""

import asyncio
from contextlib import suppress

from durable_worker.errors import BrokerRefusedError, ConnectionLostError, TransportError
from durable_worker.protocol.names import Names
from durable_worker.transports.base import Envelope
from durable_worker.transports.rabbitmq.amqp.errors import AmqpError
from durable_worker.transports.rabbitmq.lanes import Channel
from durable_worker.transports.rabbitmq.link import (
    Link,
    channel_of,
    pause,
    raise_if_cancelled,
    translation,
)
from durable_worker.transports.rabbitmq.messages import to_properties
from durable_worker.transports.rabbitmq.topology import declare_exchange

RETRY_SECONDS = 0.1


class Broadcaster:
    """Publishes to exchanges over one channel, which declares each before its first use."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._channel: Channel | None = None
        self._refusal: TransportError | None = None
        self._declared: dict[str, asyncio.Future[None]] = {}
        self._wake = asyncio.Event()

    async def serve(self, link: Link) -> None:
        while True:
            try:
                async with channel_of(link) as channel:
                    channel.on_end(self._wake.set)
                    self._channel = channel
                    await self._declare_on_demand(channel)
            except ConnectionLostError:
                await pause(RETRY_SECONDS)
            finally:
                self._channel = None
                self._forget(ConnectionLostError("the broker connection was lost"))

    def refuse(self, error: TransportError) -> None:
        self._refusal = error

    async def broadcast(self, exchange: str, envelope: Envelope, *, topic: str) -> None:
        """Raises `BrokerRefusedError` if the exchange cannot be declared."""
        if self._refusal is not None:
            raise self._refusal
        channel = self._channel
        if channel is None:
            return
        with suppress(ConnectionLostError):
            declared = self._declaration_of(exchange)
            if not declared.done():
                await asyncio.shield(declared)
            declared.result()
            properties = to_properties(envelope, persistent=False)
            try:
                if not channel.has_room:
                    await channel.room()
                channel.broadcast(exchange, topic, properties, envelope.body)
            except (AmqpError, OSError) as error:
                raise translation(error, "broadcast", entity=exchange) from error

    def _declaration_of(self, exchange: str) -> asyncio.Future[None]:
        if exchange not in self._declared:
            self._declared[exchange] = asyncio.get_running_loop().create_future()
            self._wake.set()
        return self._declared[exchange]

    async def _declare_on_demand(self, channel: Channel) -> None:
        while not channel.is_closed:
            self._wake.clear()
            for exchange in [name for name, done in self._declared.items() if not done.done()]:
                try:
                    await declare_exchange(channel, exchange, self._names)
                except BrokerRefusedError as error:
                    _fail(self._declared.pop(exchange), error)
                    return
                self._declared[exchange].set_result(None)
            raise_if_cancelled()
            await self._wake.wait()

    def _forget(self, error: TransportError) -> None:
        declared, self._declared = self._declared, {}
        for future in declared.values():
            if not future.done():
                _fail(future, error)


def _fail(future: asyncio.Future[None], error: TransportError) -> None:
    future.set_exception(error)
    # Read once: the waiter may have been cancelled meanwhile.
    future.exception()
