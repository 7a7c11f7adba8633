"""How messages get in and out of the bare loop: by the AMQP client that the transport uses."""

import asyncio
from collections.abc import Callable
from typing import Self

from durable_worker.transports.rabbitmq.address import BrokerAddress, parse_address
from durable_worker.transports.rabbitmq.amqp.channel import AmqpChannel
from durable_worker.transports.rabbitmq.amqp.connection import AmqpConnection
from durable_worker.transports.rabbitmq.amqp.events import Message
from durable_worker.transports.rabbitmq.amqp.handshake import Login
from durable_worker.transports.rabbitmq.amqp.properties import Properties, Template

HEARTBEAT_SECONDS = 10


class BarePath:
    """One connection to consume, one to publish, as the transport has."""

    def __init__(self, incoming: AmqpChannel, outgoing: AmqpChannel) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        properties = Properties(
            content_type="application/json",
            message_type="step-result",
            message_id="",
            delivery_mode=2,
            headers={"durable-protocol": 1},
        )
        self._template = Template(properties)
        self._unconfirmed: set[asyncio.Future[None]] = set()

    @classmethod
    async def open(cls, url: str) -> Self:
        address = parse_address(url)
        consuming, publishing = await connected(address), await connected(address)
        return cls(await consuming.channel(), await publishing.channel(confirms=True))

    async def consume(
        self, queue: str, handler: Callable[[int, bytes], None], *, prefetch: int
    ) -> None:
        def receive(message: Message) -> None:
            handler(message.tag, message.body)

        await self._incoming.limit(prefetch)
        await self._incoming.consume(queue, receive, is_acked=True)

    def publish(
        self, queue: str, message_id: str, body: bytes, *, then: Callable[[], None]
    ) -> None:
        """A persistent, mandatory message; `then` is called once the broker has confirmed it."""

        def confirmed(confirm: asyncio.Future[None]) -> None:
            self._unconfirmed.discard(confirm)
            confirm.result()
            then()

        properties = self._template.with_id(message_id)
        confirm = self._outgoing.publish("", queue, properties, body)
        self._unconfirmed.add(confirm)
        confirm.add_done_callback(confirmed)

    def ack(self, tag: int) -> None:
        self._incoming.ack(tag)

    async def close(self) -> None:
        """After everything was confirmed and acknowledged."""
        while self._unconfirmed:
            await asyncio.wait(self._unconfirmed)
        for channel in (self._incoming, self._outgoing):
            await channel.close()
            await channel.connection.close()


async def connected(address: BrokerAddress) -> AmqpConnection:
    login = Login(
        user=address.user,
        password=address.password or "guest",
        vhost=address.vhost,
        heartbeat=HEARTBEAT_SECONDS,
        name="bare loop",
    )
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(
        lambda: AmqpConnection(login), address.host, address.port
    )
    await connection.opened()
    return connection
