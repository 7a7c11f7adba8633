"""The two things that can be consumed: a work queue, and what is broadcast from now on."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Protocol

from msgspec import Struct

from durable_worker.protocol.names import Names
from durable_worker.transports.base import DELIVERY_LIMIT, Delivery, Envelope
from durable_worker.transports.rabbitmq.amqp.events import Message
from durable_worker.transports.rabbitmq.delivery import Holdings, RabbitDelivery
from durable_worker.transports.rabbitmq.lanes import Channel
from durable_worker.transports.rabbitmq.messages import to_envelope
from durable_worker.transports.rabbitmq.topology import bind_own_queue

Work = Coroutine[None, None, None]


class Source(Protocol):
    """Where a consumer takes its messages from, and who gets them."""

    @property
    def name(self) -> str:
        """The queue or exchange, for people."""
        ...

    @property
    def prefetch(self) -> int | None:
        """How many may be unanswered at one time; None: it is not answered at all."""
        ...

    async def prepare(self, channel: Channel) -> str:
        """Make sure that it exists; the queue to consume. Raises `TransportError`s."""
        ...

    def receive(self, message: Message, holdings: Holdings) -> "Work | None":
        """Hand it on; what is left to do for it, if it must be waited for."""
        ...


class WorkQueue(Struct, frozen=True):
    name: str
    handler: Callable[[Delivery], None]
    prefetch: int
    dead: str
    declare: Callable[[Channel, str], Awaitable[None]]
    renew: Callable[[RabbitDelivery], Awaitable[None]]
    give_up: Callable[[RabbitDelivery], Work]

    async def prepare(self, channel: Channel) -> str:
        await self.declare(channel, self.name)
        return self.name

    def receive(self, message: Message, holdings: Holdings) -> Work | None:
        delivery = RabbitDelivery(holdings, self.name, message, self.renew)
        # The broker counts for itself, but not what happened to copies of the message.
        if delivery.delivery_count > DELIVERY_LIMIT and self.name != self.dead:
            return self.give_up(delivery)
        self.handler(delivery)
        return None


class Broadcast(Struct, frozen=True):
    name: str
    handler: Callable[[Envelope], None]
    topic: str
    names: Names
    prefetch: None = None

    async def prepare(self, channel: Channel) -> str:
        return await bind_own_queue(channel, self.name, self.topic, self.names)

    def receive(self, message: Message, holdings: Holdings) -> None:  # noqa: ARG002
        self.handler(to_envelope(message))
