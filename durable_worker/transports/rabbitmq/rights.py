"""Topology for a user who may use it and may not create it (protocol/README.md, "Permissions")."""

from collections.abc import Awaitable, Callable

from durable_worker.errors import ConnectionLostError
from durable_worker.transports.rabbitmq.amqp.errors import (
    ACCESS_REFUSED,
    NOT_FOUND,
    ChannelClosedError,
)
from durable_worker.transports.rabbitmq.lanes import Channel

Declare = Callable[[Channel], Awaitable[object]]


async def make_sure(channel: Channel, *, look: Declare, create: Declare) -> None:
    """Create it; on a connection that was refused that once, look first whether it is there.

    The broker closes the channel with the first refusal: then this raises `ConnectionLostError`,
    and the next try knows better.
    """
    is_limited = channel.connection.is_limited
    if is_limited and await _is_there(channel, look):
        return
    try:
        await create(channel)
    except ChannelClosedError as error:
        if is_limited or error.code != ACCESS_REFUSED:
            raise  # it is not there, and not for us to create
        channel.connection.is_limited = True
        raise ConnectionLostError(f"this user may not create it: {error}") from None


async def _is_there(channel: Channel, look: Declare) -> bool:
    """Over another channel: the broker closes it if there is nothing."""
    probe = await channel.connection.channel()
    try:
        await look(probe)
    except ChannelClosedError as error:
        if error.code != NOT_FOUND:
            raise
        return False
    else:
        return True
    finally:
        await probe.close()
