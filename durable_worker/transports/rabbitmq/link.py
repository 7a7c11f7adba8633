"""One AMQP connection of one generation, and what its failures mean to us."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from ssl import SSLContext
from typing import cast

from aiormq import spec
from aiormq.abc import AbstractChannel
from aiormq.channel import Channel
from aiormq.connection import (
    Connection,
    FrameReceiver,
    ReceivedFrame,
)
from aiormq.exceptions import (
    AMQPError,
    AuthenticationError,
    ChannelAccessRefused,
    ChannelInvalidStateError,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    ConnectionClosed,
    ProbableAuthenticationError,
)
from pamqp.base import Frame
from pamqp.frame import FrameTypes
from yarl import URL

from durable_worker.errors import BrokerRefusedError, ConnectionLostError, TransportError
from durable_worker.transports.rabbitmq.address import BrokerAddress
from durable_worker.transports.rabbitmq.frames import Frames
from durable_worker.transports.rabbitmq.pulse import Pulse
from durable_worker.transports.rabbitmq.sockets import Sockets

CONNECT_TIMEOUT = 10.0
"""Seconds until an attempt to connect counts as failed."""

CLOSE_TIMEOUT = 2.0
"""Seconds that the broker gets to say goodbye."""

_ACCESS_REFUSED = 403
_NOT_ALLOWED = 530

# The library logs each failed attempt as an error, which would land on the terminal of a program
# that has not set up logging; our own states tell the same in one line.
logging.getLogger("aiormq").addHandler(logging.NullHandler())


class _Frames(FrameReceiver):
    """Frames of the handshake, where the broker may say no instead of going on."""

    def __init__(self, frames: FrameReceiver) -> None:
        super().__init__(frames.reader)
        self._frames = frames

    async def get_frame(self) -> ReceivedFrame:
        received = await self._frames.get_frame()
        frame = received[2]
        if isinstance(frame, spec.Connection.Close):
            if frame.reply_code == _ACCESS_REFUSED:
                raise ProbableAuthenticationError(frame.reply_text)
            raise ConnectionClosed(frame.reply_code, frame.reply_text)
        return received


class _Connection(Connection):
    """Keeps the broker's reason for a refused virtual host, which the library loses; takes no
    broker for silent from which something has come that nobody had the time to read; and survives
    messages whose properties cannot be decoded, over which the library closes the connection."""

    def __init__(self, url: URL, *, sockets: Sockets, context: SSLContext | None) -> None:
        super().__init__(url, context=context, transport_factory=sockets)
        self._sockets = sockets

    @property
    def is_connection_was_stuck(self) -> bool:
        return super().is_connection_was_stuck and not self._sockets.has_unread()

    async def _Connection__reader(self, frame_receiver: FrameReceiver) -> None:
        # By its mangled name: the library has no other place where its own reading can be replaced.
        await super()._Connection__reader(Frames(frame_receiver))  # type: ignore[misc]  # pyright: ignore

    @staticmethod
    async def _rpc(
        request: Frame,
        writer: asyncio.StreamWriter,
        frame_receiver: FrameReceiver,
        wait_response: bool = True,
    ) -> FrameTypes | None:
        frames = _Frames(frame_receiver)
        return await Connection._rpc(request, writer, frames, wait_response)


class Link:
    """An open connection. Everything read from it belongs to `generation` and dies with it."""

    def __init__(self, connection: Connection, sockets: Sockets, *, generation: int) -> None:
        self._connection = connection
        self._sockets = sockets
        self.generation = generation

    async def channel(self, *, confirms: bool = False) -> Channel:
        """Open a channel. Raises `ConnectionLostError`."""
        with translated("open a channel"):
            channel = await self._connection.channel(publisher_confirms=confirms)
        assert isinstance(channel, Channel)
        return channel

    async def lost(self) -> ConnectionLostError:
        """Wait until the connection is gone; why."""
        return ConnectionLostError(_reason(await ended(self._connection)))

    @property
    def is_lost(self) -> bool:
        return self._connection.is_closed

    @property
    def is_silent(self) -> bool:
        """Whether nothing has come from the broker for so long that it must be taken for lost."""
        return self._connection.is_connection_was_stuck

    async def is_blocked(self) -> bool:
        """Whether the broker has stopped reading from this connection."""
        try:
            async with asyncio.timeout(0.01):
                await self._connection.ready()
        except TimeoutError:
            return True
        return False

    async def unblocked(self) -> None:
        await self._connection.ready()

    async def close(self) -> None:
        """Say goodbye within a bounded time. Raises nothing."""
        if not await _within(CLOSE_TIMEOUT, self._connection):
            self._sockets.cut()
            await _within(CLOSE_TIMEOUT, self._connection)
        self._sockets.end()
        await self._free_writers()

    async def _free_writers(self) -> None:
        # The library leaves whoever waits for room in the write queue of a dead connection waiting.
        queue = cast(asyncio.Queue[object], self._connection.write_queue)  # pyright: ignore[reportUnknownMemberType]
        while not queue.empty():
            queue.get_nowait()
            await asyncio.sleep(0)


async def open_link(
    address: BrokerAddress, *, name: str, heartbeat: int, generation: int, pulse: Pulse
) -> Link:
    """Connect once. Raises `BrokerRefusedError`, `ConnectionLostError`."""
    query = {"heartbeat": str(heartbeat), "name": name} | dict(address.url.query)
    sockets = Sockets(is_tls=address.tls is not None, pulse=pulse)
    context = None
    if address.tls is not None:
        from durable_worker.transports.rabbitmq.tls import context_for

        context = await context_for(address.tls)
    connection = _Connection(address.url.with_query(query), sockets=sockets, context=context)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await connection.connect()  # pyright: ignore[reportUnknownMemberType]
    except TimeoutError:
        raise ConnectionLostError(
            f"no answer from {address.safe} within {CONNECT_TIMEOUT:g} s"
        ) from None
    except (AMQPError, OSError) as error:
        if context is not None:
            from durable_worker.transports.rabbitmq.tls import reason_of_cut

            told = await reason_of_cut(error, address, context)
            raise _connect_error(address, told or error) from error
        raise _connect_error(address, error) from error
    sockets.keep_alive(heartbeat=connection.heartbeat_timeout)
    return Link(connection, sockets, generation=generation)


def _connect_error(address: BrokerAddress, error: AMQPError | OSError) -> TransportError:
    where = address.safe
    match error:
        case ProbableAuthenticationError():
            return BrokerRefusedError(
                f"the broker at {where} refused the login of user {address.user!r}: "
                f"wrong user name or password"
            )
        case AuthenticationError():
            return BrokerRefusedError(
                f"the broker at {where} offers none of the ways to log in that this client has"
            )
        case ConnectionClosed(args=(int(code), str(text))) if _is_final(code, text):
            return BrokerRefusedError(
                f"the broker at {where} refused virtual host {address.vhost!r} "
                f"for user {address.user!r}: {_plain(text)}"
            )
        case _:
            from durable_worker.transports.rabbitmq.tls import explained

            return explained(error, address) or ConnectionLostError(
                f"cannot connect to {where}: {_reason(error)}"
            )


def _is_final(code: int, text: str) -> bool:
    # A vhost or user at its connection limit has room again when somebody else leaves.
    return code == _NOT_ALLOWED and "limit" not in text


async def ended(resource: Connection | AbstractChannel) -> BaseException | None:
    """Wait until a connection or channel is closed, by whomever; the reason if there is one."""
    closing = _closing_of(resource)
    await asyncio.wait({closing})
    return None if closing.cancelled() else closing.exception()


def call_at_end(channel: Channel, callback: Callable[[], None]) -> None:
    """Call once when the channel is closed, by whomever."""
    _closing_of(channel).add_done_callback(lambda _: callback())


def _closing_of(resource: Connection | AbstractChannel) -> asyncio.Future[object]:
    return cast(asyncio.Future[object], resource.closing)  # pyright: ignore[reportUnknownMemberType]


async def _within(seconds: float, resource: Connection | Channel) -> bool:
    """Close it; whether that was done in time."""
    # In a task of its own: the library's close can swallow a cancellation that is meant for us.
    closing = asyncio.ensure_future(resource.close())
    try:
        await asyncio.wait({closing}, timeout=seconds)
    finally:
        is_done = closing.done()
        closing.cancel()
    if is_done and not closing.cancelled():
        # Whatever it says, there is nothing left to do about it.
        closing.exception()
    return is_done


async def close_channel(channel: Channel) -> None:
    """Close it after all that was written to it. Raises nothing."""
    await _within(CLOSE_TIMEOUT, channel)


@contextmanager
def translated(doing: str, *, entity: str = "") -> Generator[None]:
    """Turn the library's errors into ours. `entity` is the queue or exchange that it is about."""
    cancellations = _cancellations()
    try:
        yield
    except asyncio.CancelledError:
        # The library fails what waits on a closed connection with CancelledError.
        if _cancellations() > cancellations:
            raise
        raise ConnectionLostError(f"could not {doing}: the connection was closed") from None
    except ChannelPreconditionFailed as error:
        raise BrokerRefusedError(
            f"{entity!r} exists on the broker with other properties than the protocol fixes "
            f"({_plain(_text(error))}). Delete it once it is empty, or use another prefix; "
            f"settings of your own belong in a broker policy."
        ) from error
    except (ChannelAccessRefused, ChannelLockedResource) as error:
        raise BrokerRefusedError(
            f"the broker refused to {doing} {entity!r}: {_plain(_text(error))}. "
            f"Grant the user configure, write and read permission on it."
        ) from error
    except (AMQPError, OSError, ChannelInvalidStateError, RuntimeError) as error:
        raise ConnectionLostError(f"could not {doing}: {_reason(error)}") from error
    except Exception as error:
        # The library ends calls that wait on a connection it gives up with this very class.
        if type(error) is not Exception:
            raise
        raise ConnectionLostError(f"could not {doing}: the connection was closed") from error


@asynccontextmanager
async def channel_of(link: Link, *, confirms: bool = False) -> AsyncGenerator[Channel]:
    """A channel for one purpose, closed at the end."""
    channel = await link.channel(confirms=confirms)
    try:
        yield channel
    finally:
        await close_channel(channel)


async def pause(seconds: float) -> None:
    """Wait before the next try on the same link. If the link is gone, this ends in cancellation."""
    raise_if_cancelled()
    await asyncio.sleep(seconds)


def raise_if_cancelled() -> None:
    """Tell a task that was cancelled so once more: the library swallows that now and then."""
    if _cancellations():
        raise asyncio.CancelledError


def _cancellations() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def _reason(error: BaseException | None) -> str:
    match error:
        case None | asyncio.CancelledError():
            return "no sign of life from the broker, or the connection was closed here"
        case ChannelNotFoundEntity() | ConnectionClosed() if error.args:
            return _plain(_text(error))
        case _:
            return _plain(str(error)) or type(error).__name__


def _text(error: BaseException) -> str:
    return str(error.args[-1]) if error.args else str(error)


def _plain(text: str) -> str:
    """The broker's sentence without its upper-case code."""
    code, _, sentence = text.partition(" - ")
    return sentence if sentence and code.isupper() else text
