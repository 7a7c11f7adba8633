"""How messages get in and out of the bare loop: by the AMQP client that the transport uses."""

import asyncio
from collections.abc import Callable
from typing import Self

import aiormq
from aiormq import spec
from aiormq.abc import AbstractChannel, AbstractConnection, DeliveredMessage


class BarePath:
    """One connection to consume, one to publish, as the transport has."""

    def __init__(
        self,
        connections: tuple[AbstractConnection, AbstractConnection],
        incoming: AbstractChannel,
        outgoing: AbstractChannel,
    ) -> None:
        self._connections = connections
        self._incoming = incoming
        self._outgoing = outgoing
        self._sending: set[asyncio.Task[None]] = set()

    @classmethod
    async def open(cls, url: str) -> Self:
        consuming, publishing = await aiormq.connect(url), await aiormq.connect(url)
        incoming, outgoing = await consuming.channel(), await publishing.channel()
        return cls((consuming, publishing), incoming, outgoing)

    async def consume(
        self, queue: str, handler: Callable[[int, bytes], None], *, prefetch: int
    ) -> None:
        async def receive(message: DeliveredMessage) -> None:
            assert message.delivery_tag is not None
            handler(message.delivery_tag, message.body)

        await self._incoming.basic_qos(prefetch_count=prefetch)
        await self._incoming.basic_consume(queue, receive)

    def publish(
        self, queue: str, message_id: str, body: bytes, *, then: Callable[[], None]
    ) -> None:
        """A persistent, mandatory message; `then` is called once the broker has confirmed it."""
        sending = asyncio.create_task(self._publish(queue, message_id, body, then))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)

    def ack(self, tag: int) -> None:
        acking = asyncio.create_task(self._incoming.basic_ack(tag, wait=False))
        self._sending.add(acking)
        acking.add_done_callback(self._sending.discard)

    async def close(self) -> None:
        """After everything was confirmed and acknowledged."""
        while self._sending:
            await asyncio.wait(self._sending)
        await self._incoming.basic_qos(prefetch_count=1)  # its answer comes after them
        for connection in self._connections:
            await connection.close()

    async def _publish(
        self, queue: str, message_id: str, body: bytes, then: Callable[[], None]
    ) -> None:
        properties = spec.Basic.Properties(
            content_type="application/json",
            message_type="step-result",
            message_id=message_id,
            delivery_mode=2,
            headers={"durable-protocol": 1},
        )
        await self._outgoing.basic_publish(
            body, routing_key=queue, properties=properties, mandatory=True
        )
        then()
