"""Connects our own client."""

from ssl import SSLContext

from durable_worker.transports.rabbitmq.address import BrokerAddress
from durable_worker.transports.rabbitmq.amqp.connection import AmqpConnection
from durable_worker.transports.rabbitmq.amqp.handshake import Login
from durable_worker.transports.rabbitmq.lanes import Connection
from durable_worker.transports.rabbitmq.sockets import Sockets


async def connect(
    address: BrokerAddress,
    sockets: Sockets,
    context: SSLContext | None,
    *,
    name: str,
    heartbeat: int,
) -> Connection:
    """Raises `AmqpError`, `OSError`."""
    login = Login(
        user=address.user,
        password=address.password or "guest",
        vhost=address.vhost,
        heartbeat=heartbeat,
        name=name,
        mechanism=address.options.get("auth", "plain").upper(),
    )

    def made() -> AmqpConnection:
        is_encrypted = context is not None
        return AmqpConnection(login, has_unread=sockets.has_unread, is_encrypted=is_encrypted)

    _, connection = await sockets.connect(address.host, address.port, made, context=context)
    try:
        await connection.opened()
    except BaseException:
        sockets.cut()
        raise
    return connection
