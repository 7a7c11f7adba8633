"""Queues and exchanges as the protocol fixes them (protocol/README.md, "AMQP binding")."""

from datetime import timedelta

from durable_worker.protocol.names import Names
from durable_worker.transports.base import DELIVERY_LIMIT
from durable_worker.transports.rabbitmq.amqp.errors import NOT_FOUND, ChannelClosedError
from durable_worker.transports.rabbitmq.lanes import Channel, QueueState
from durable_worker.transports.rabbitmq.link import translated
from durable_worker.transports.rabbitmq.rights import make_sure

BROADCAST_BUFFER = 10_000
"""How many broadcasts wait for a listener that does not keep up; the oldest go first."""

OF_ONE_WORKER: dict[str, str | int] = {
    # What the worker does not take soon goes back to the operator, by way of the dead queue.
    "x-message-ttl": 1_000,
    # Longer than any copy of a turn is held, which comes back here first.
    "x-expires": 60_000,
}

HELD_ARGUMENTS: dict[str, str | int] = {
    "x-queue-type": "quorum",
    # Long enough for whatever is on its way out of the queue of a process that is gone.
    "x-expires": 3_600_000,
    "x-overflow": "reject-publish",
    # Without a routing key of the queue's own, a message goes where its own key says.
    "x-dead-letter-exchange": "",
    "x-dead-letter-strategy": "at-least-once",
}


def queue_arguments(queue: str, names: Names) -> dict[str, str | int]:
    """Arguments that every peer must declare alike; anything tunable belongs in a policy."""
    if queue == names.dead:
        return {"x-queue-type": "quorum"}
    passing: dict[str, str | int] = OF_ONE_WORKER if names.is_of_one_worker(queue) else {}
    return {
        **passing,
        "x-queue-type": "quorum",
        "x-delivery-limit": DELIVERY_LIMIT,
        "x-overflow": "reject-publish",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": names.dead,
        "x-dead-letter-strategy": "at-least-once",
    }


def exchange_type(exchange: str, names: Names) -> str:
    is_by_tenant = exchange in (names.tenant_events, names.tenant_replies)
    return "topic" if is_by_tenant else "fanout"


async def declare_queue(channel: Channel, queue: str, names: Names) -> None:
    """Raises `BrokerRefusedError`, `ConnectionLostError`; either way the channel is gone."""
    arguments = queue_arguments(queue, names)
    with translated("declare queue", entity=queue):
        await make_sure(
            channel,
            look=lambda on: on.look_at_queue(queue),
            create=lambda on: on.declare_queue(queue, arguments),
        )


async def declare_exchange(channel: Channel, exchange: str, names: Names) -> None:
    """Raises `BrokerRefusedError`, `ConnectionLostError`; either way the channel is gone."""
    kind = exchange_type(exchange, names)
    with translated("declare exchange", entity=exchange):
        await make_sure(
            channel,
            look=lambda on: on.look_at_exchange(exchange, kind),
            create=lambda on: on.declare_exchange(exchange, kind),
        )


async def bind_own_queue(channel: Channel, exchange: str, topic: str, names: Names) -> str:
    """Bind a queue of this process alone to a broadcast; its name."""
    await declare_exchange(channel, exchange, names)
    with translated("listen to exchange", entity=exchange):
        queue = await channel.declare_own_queue({"x-max-length": BROADCAST_BUFFER})
        await channel.bind(queue, exchange, topic)
    return queue


async def declare_held(channel: Channel, queue: str, *, held_for: timedelta) -> None:
    """A queue for what one process works on, and an exchange of that name which feeds only it.

    Raises `BrokerRefusedError`, `ConnectionLostError`; either way the channel is gone.
    """
    arguments = {"x-message-ttl": round(held_for / timedelta(milliseconds=1)), **HELD_ARGUMENTS}
    with translated("declare queue", entity=queue):
        await channel.declare_queue(queue, arguments)
    with translated("declare exchange", entity=queue):
        await channel.declare_exchange(queue, "fanout", is_passing=True)
    with translated("bind queue", entity=queue):
        await channel.bind(queue, queue, "")


async def look_at(channel: Channel, queue: str) -> QueueState:
    """Raises `ConnectionLostError` if the queue is gone; then the channel is, too."""
    with translated("look at queue", entity=queue):
        return await channel.look_at_queue(queue)


async def consumers_if_any(channel: Channel, queue: str) -> int:
    """0 if there is no such queue; then the channel is gone."""
    with translated("look at queue", entity=queue):
        try:
            return (await channel.look_at_queue(queue)).consumers
        except ChannelClosedError as error:
            if error.code != NOT_FOUND:
                raise
    return 0
