"""Messages taken from a work queue, and the channel they can be answered on."""

import asyncio
from contextlib import suppress

from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel

from durable_worker.errors import ConnectionLostError
from durable_worker.transports.base import Envelope
from durable_worker.transports.rabbitmq.link import translated
from durable_worker.transports.rabbitmq.messages import delivery_count_of, to_envelope


class Holdings:
    """What was taken over one channel of one connection and is not answered yet.

    A delivery tag means something on its own channel only, so a delivery answers through the
    holdings it came from; once that channel is closed, an answer does nothing.
    """

    def __init__(self, channel: Channel, *, generation: int) -> None:
        self._channel = channel
        self._tags: set[int] = set()
        self._is_open = True
        self._settled = asyncio.Event()
        self._settled.set()
        self.generation = generation

    def take(self, queue: str, message: DeliveredMessage) -> "RabbitDelivery":
        tag = message.delivery_tag
        assert tag is not None
        self._tags.add(tag)
        self._settled.clear()
        return RabbitDelivery(self, tag, queue, message)

    async def settled(self) -> None:
        """Wait until nothing is left to answer."""
        await self._settled.wait()

    def close(self) -> None:
        """From now on answers do nothing: on a closing channel they would be an offence."""
        self._is_open = False
        self._tags.clear()
        self._settled.set()

    async def ack(self, tag: int) -> None:
        if self._forget(tag):
            with suppress(ConnectionLostError), translated("acknowledge a message"):
                await self._channel.basic_ack(tag, wait=False)
            self._note_settled()

    async def release(self, tag: int) -> None:
        if self._forget(tag):
            with suppress(ConnectionLostError), translated("release a message"):
                await self._channel.basic_nack(tag, requeue=True, wait=False)
            self._note_settled()

    def _forget(self, tag: int) -> bool:
        if not self._is_open or tag not in self._tags:
            return False
        self._tags.remove(tag)
        return True

    def _note_settled(self) -> None:
        if not self._tags:
            self._settled.set()


class RabbitDelivery:
    """One message from a work queue of RabbitMQ."""

    __slots__ = ("_holdings", "_tag", "delivery_count", "envelope", "queue")

    def __init__(self, holdings: Holdings, tag: int, queue: str, message: DeliveredMessage) -> None:
        self._holdings = holdings
        self._tag = tag
        self.queue = queue
        self.envelope: Envelope = to_envelope(message)
        self.delivery_count = delivery_count_of(message)

    @property
    def generation(self) -> int:
        """Number of the connection that it came over."""
        return self._holdings.generation

    async def ack(self) -> None:
        await self._holdings.ack(self._tag)

    async def release(self) -> None:
        await self._holdings.release(self._tag)
