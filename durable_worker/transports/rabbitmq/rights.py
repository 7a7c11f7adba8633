"""Topology for a user who may use it and may not create it (protocol/README.md, "Permissions")."""

from collections.abc import Awaitable, Callable
from weakref import WeakKeyDictionary

from aiormq.abc import AbstractConnection
from aiormq.channel import Channel
from aiormq.exceptions import ChannelAccessRefused, ChannelNotFoundEntity

from durable_worker.errors import ConnectionLostError
from durable_worker.transports.rabbitmq.link import close_channel

_limited: WeakKeyDictionary[AbstractConnection, bool] = WeakKeyDictionary()
"""Connections that were refused to create something."""

Declare = Callable[[Channel], Awaitable[object]]


async def make_sure(channel: Channel, *, look: Declare, create: Declare) -> None:
    """Create it; on a connection that was refused that once, look first whether it is there.

    The broker closes the channel with the first refusal: then this raises `ConnectionLostError`,
    and the next try knows better.
    """
    is_limited = channel.connection in _limited
    if is_limited and await _is_there(channel, look):
        return
    try:
        await create(channel)
    except ChannelAccessRefused as error:
        if is_limited:
            raise  # it is not there, and not for us to create
        _limited[channel.connection] = True
        raise ConnectionLostError(f"this user may not create it: {error}") from None


async def _is_there(channel: Channel, look: Declare) -> bool:
    """Over another channel: the broker closes it if there is nothing."""
    probe = await channel.connection.channel()
    assert isinstance(probe, Channel)
    try:
        await look(probe)
    except ChannelNotFoundEntity:
        return False
    else:
        return True
    finally:
        await close_channel(probe)
