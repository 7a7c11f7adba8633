"""The two things that can be consumed: a work queue, and what is broadcast from now on."""

from collections.abc import Callable
from typing import Protocol

from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel
from msgspec import Struct

from durable_worker.protocol.names import Names
from durable_worker.transports.base import Delivery, Envelope
from durable_worker.transports.rabbitmq.delivery import Holdings
from durable_worker.transports.rabbitmq.link import translated
from durable_worker.transports.rabbitmq.messages import to_envelope
from durable_worker.transports.rabbitmq.topology import bind_own_queue, declare_queue


class Source(Protocol):
    """Where a consumer takes its messages from, and who gets them."""

    @property
    def name(self) -> str:
        """The queue or exchange, for people."""
        ...

    @property
    def is_acked(self) -> bool: ...

    async def prepare(self, channel: Channel) -> str:
        """Make sure that it exists; the queue to consume. Raises `TransportError`s."""
        ...

    def receive(self, message: DeliveredMessage, holdings: Holdings) -> None: ...


class WorkQueue(Struct, frozen=True):
    name: str
    handler: Callable[[Delivery], None]
    prefetch: int
    names: Names
    is_acked: bool = True

    async def prepare(self, channel: Channel) -> str:
        with translated("limit the prefetch of queue", entity=self.name):
            await channel.basic_qos(prefetch_count=self.prefetch)
        await declare_queue(channel, self.name, self.names)
        return self.name

    def receive(self, message: DeliveredMessage, holdings: Holdings) -> None:
        self.handler(holdings.take(self.name, message))


class Broadcast(Struct, frozen=True):
    name: str
    handler: Callable[[Envelope], None]
    topic: str
    names: Names
    is_acked: bool = False

    async def prepare(self, channel: Channel) -> str:
        return await bind_own_queue(channel, self.name, self.topic, self.names)

    def receive(self, message: DeliveredMessage, holdings: Holdings) -> None:  # noqa: ARG002
        self.handler(to_envelope(message))
