"""One AMQP connection of one generation, and what its failures mean to us."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

from durable_worker.errors import BrokerRefusedError, ConnectionLostError, TransportError
from durable_worker.transports.rabbitmq.address import BrokerAddress
from durable_worker.transports.rabbitmq.amqp.errors import (
    ACCESS_REFUSED,
    PRECONDITION_FAILED,
    RESOURCE_LOCKED,
    AmqpError,
    ChannelClosedError,
    ConnectionClosedError,
    LoginRefusedError,
    NoMechanismError,
)
from durable_worker.transports.rabbitmq.lanes import Channel, Connection, Lane
from durable_worker.transports.rabbitmq.pulse import Pulse
from durable_worker.transports.rabbitmq.sockets import Sockets

CONNECT_TIMEOUT = 10.0
"""Seconds until an attempt to connect counts as failed."""

_NOT_ALLOWED = 530


class Link:
    """An open connection. Everything read from it belongs to `generation` and dies with it."""

    def __init__(self, connection: Connection, sockets: Sockets, *, generation: int) -> None:
        self._connection = connection
        self._sockets = sockets
        self.generation = generation

    async def channel(self, *, confirms: bool = False) -> Channel:
        """Open a channel. Raises `ConnectionLostError`."""
        with translated("open a channel"):
            return await self._connection.channel(confirms=confirms)

    async def lost(self) -> ConnectionLostError:
        """Wait until the connection is gone; why."""
        return ConnectionLostError(_reason(await self._connection.ended()))

    @property
    def is_lost(self) -> bool:
        return self._connection.is_closed

    @property
    def is_silent(self) -> bool:
        """Whether nothing has come from the broker for so long that it must be taken for lost."""
        return self._connection.is_silent

    async def is_blocked(self) -> bool:
        """Whether the broker has stopped reading from this connection."""
        return await self._connection.is_blocked()

    async def unblocked(self) -> None:
        await self._connection.unblocked()

    async def close(self) -> None:
        """Say goodbye within a bounded time. Raises nothing."""
        try:
            await self._connection.close()
        finally:
            self._sockets.end()


async def open_link(
    address: BrokerAddress,
    *,
    name: str,
    heartbeat: int,
    generation: int,
    pulse: Pulse,
    lane: Lane = Lane.FAST,
) -> Link:
    """Connect once. Raises `BrokerRefusedError`, `ConnectionLostError`."""
    sockets = Sockets(pulse=pulse)
    heartbeat = int(address.options.get("heartbeat", heartbeat))
    name = address.options.get("name", name)
    context = None
    if address.tls is not None:
        from durable_worker.transports.rabbitmq.tls import context_for

        context = await context_for(address.tls)
    if lane is Lane.FAST:
        from durable_worker.transports.rabbitmq.fast import connect
    else:
        from durable_worker.transports.rabbitmq.fallback import connect
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            connection = await connect(address, sockets, context, name=name, heartbeat=heartbeat)
    except TimeoutError:
        raise ConnectionLostError(
            f"no answer from {address.safe} within {CONNECT_TIMEOUT:g} s"
        ) from None
    except (AmqpError, OSError) as error:
        if context is not None:
            from durable_worker.transports.rabbitmq.tls import reason_of_cut

            told = await reason_of_cut(error, address, context)
            raise _connect_error(address, told or error) from error
        raise _connect_error(address, error) from error
    sockets.keep_alive(heartbeat=heartbeat)
    return Link(connection, sockets, generation=generation)


def _connect_error(address: BrokerAddress, error: AmqpError | OSError) -> TransportError:
    where = address.safe
    match error:
        case LoginRefusedError():
            return BrokerRefusedError(
                f"the broker at {where} refused the login of user {address.user!r}: "
                f"wrong user name or password"
            )
        case NoMechanismError():
            return BrokerRefusedError(
                f"the broker at {where} offers none of the ways to log in that this client has"
            )
        case ConnectionClosedError() if _is_final(error.code, error.text):
            return BrokerRefusedError(
                f"the broker at {where} refused virtual host {address.vhost!r} "
                f"for user {address.user!r}: {_plain(error.text)}"
            )
        case _:
            from durable_worker.transports.rabbitmq.tls import explained

            return explained(error, address) or ConnectionLostError(
                f"cannot connect to {where}: {_reason(error)}"
            )


def _is_final(code: int, text: str) -> bool:
    # A vhost or user at its connection limit has room again when somebody else leaves.
    return code == _NOT_ALLOWED and "limit" not in text


@contextmanager
def translated(doing: str, *, entity: str = "") -> Generator[None]:
    """Turn the client's errors into ours. `entity` is the queue or exchange that it is about."""
    try:
        yield
    except (AmqpError, OSError) as error:
        raise translation(error, doing, entity=entity) from error


def translation(error: AmqpError | OSError, doing: str, *, entity: str = "") -> TransportError:
    code = error.code if isinstance(error, ChannelClosedError) else 0
    if code == PRECONDITION_FAILED:
        return BrokerRefusedError(
            f"{entity!r} exists on the broker with other properties than the protocol fixes "
            f"({_reason(error)}). Delete it once it is empty, or use another prefix; "
            f"settings of your own belong in a broker policy."
        )
    if code in (ACCESS_REFUSED, RESOURCE_LOCKED):
        return BrokerRefusedError(
            f"the broker refused to {doing} {entity!r}: {_reason(error)}. "
            f"Grant the user configure, write and read permission on it."
        )
    return ConnectionLostError(f"could not {doing}: {_reason(error)}")


@asynccontextmanager
async def channel_of(link: Link, *, confirms: bool = False) -> AsyncGenerator[Channel]:
    """A channel for one purpose, closed at the end."""
    channel = await link.channel(confirms=confirms)
    try:
        yield channel
    finally:
        await channel.close()


async def pause(seconds: float) -> None:
    """Wait before the next try on the same link. If the link is gone, this ends in cancellation."""
    raise_if_cancelled()
    await asyncio.sleep(seconds)


def raise_if_cancelled() -> None:
    """Tell a task that was cancelled so once more: a client may swallow that now and then."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _reason(error: BaseException | None) -> str:
    if error is None or isinstance(error, asyncio.CancelledError):
        return "no sign of life from the broker, or the connection was closed here"
    return _plain(str(error)) or type(error).__name__


def _plain(text: str) -> str:
    """The broker's sentence without its upper-case code."""
    code, _, sentence = text.partition(" - ")
    return sentence if sentence and code.isupper() else text
