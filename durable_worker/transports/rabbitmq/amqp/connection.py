"""A connection on asyncio: the machine's bytes to and from a socket, and its events to channels."""

import asyncio
from collections.abc import Callable
from typing import Final, assert_never, cast

from durable_worker.transports.rabbitmq.amqp import events
from durable_worker.transports.rabbitmq.amqp.channel import AmqpChannel
from durable_worker.transports.rabbitmq.amqp.errors import (
    AmqpError,
    ConnectionClosedError,
    GoneError,
    LoginRefusedError,
    NoMechanismError,
    PeerError,
)
from durable_worker.transports.rabbitmq.amqp.handshake import Login
from durable_worker.transports.rabbitmq.amqp.machine import Machine
from durable_worker.transports.rabbitmq.greeting import TlsSpokenError, is_tls

SILENT_HEARTBEATS: float = 3
"""After how many heartbeats without a sign of life, and a second more for each, a broker is taken
for lost."""

CLOSE_SECONDS: Final = 2.0
"""How long the broker gets to say goodbye."""

MOST_UNWRITTEN: Final = 256 * 1024
"""Bytes of messages that gather before they are written, and their publishers wait if need be."""


READ_BYTES: Final = 256 * 1024
"""At one time. Kept from read to read: that much memory is dear to get for each anew."""


class AmqpConnection(asyncio.BufferedProtocol):
    """What it offers is in `lanes.Connection`. It is used once `opened` returns.

    `has_unread` tells whether something has arrived that nobody had the time to read.
    """

    def __init__(
        self,
        login: Login,
        *,
        has_unread: Callable[[], bool] = lambda: False,
        is_encrypted: bool = False,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.machine = Machine(login)
        self.is_limited = False
        self._heartbeat = login.heartbeat
        self._has_unread = has_unread
        self._is_greeted = is_encrypted
        self._transport: asyncio.Transport | None = None
        self._read = memoryview(bytearray(READ_BYTES))
        self._opened: asyncio.Future[None] = self.loop.create_future()
        self._end: asyncio.Future[BaseException | None] = self.loop.create_future()
        self._channels: dict[int, AmqpChannel] = {}
        self._answering: dict[AmqpChannel, None] = {}
        self._room = asyncio.Event()
        self.has_room = True
        self._unblocked = asyncio.Event()
        self._unblocked.set()
        self._looking: asyncio.TimerHandle | None = None
        self._is_flush_due = False
        self._is_paused = False
        self._unwritten = 0
        self._heard_at = self.loop.time()
        self._has_written = False
        self._is_closing = False
        self._reason: AmqpError | None = None

    async def opened(self) -> None:
        """Wait for the end of the handshake. Raises `AmqpError`s."""
        await self._opened
        if self._heartbeat:
            self._look()

    @property
    def is_closed(self) -> bool:
        return self._end.done()

    async def ended(self) -> BaseException | None:
        await asyncio.wait({self._end})
        return self._end.result()

    async def channel(self, *, confirms: bool = False) -> AmqpChannel:
        if self.is_closed or not self.machine.is_open:
            raise GoneError("the connection was closed")
        number = self.machine.free_channel()
        if number is None:
            raise GoneError("all channels of the connection are in use")
        channel = self._channels[number] = AmqpChannel(self, number)
        await channel.open(confirms=confirms)
        return channel

    @property
    def is_silent(self) -> bool:
        if not self._heartbeat:
            return False
        patience = (self._heartbeat + 1) * SILENT_HEARTBEATS
        return self.loop.time() - self._heard_at > patience and not self._has_unread()

    async def is_blocked(self) -> bool:
        return not self._unblocked.is_set()

    async def unblocked(self) -> None:
        await self._unblocked.wait()

    async def close(self) -> None:
        if self.is_closed or self._transport is None:
            return
        for channel in [*self._channels.values()]:
            self.machine.out += channel.take_answers()
        self._is_closing = True
        self.machine.close()
        self._flush()
        await asyncio.wait({self._end}, timeout=CLOSE_SECONDS)
        self._transport.abort()
        await asyncio.wait({self._end}, timeout=CLOSE_SECONDS)

    # For channels

    async def room_or_end(self) -> None:
        await self._room.wait()

    def note_room(self) -> None:
        self._room.set()
        self._room = asyncio.Event()

    def wrote(self, size: int) -> None:
        """A message was put among what is to be sent."""
        self._unwritten += size
        if self._unwritten > MOST_UNWRITTEN:
            self._flush()
        elif not self._is_flush_due:
            self._is_flush_due = True
            self.loop.call_soon(self._flush)

    def has_answers(self, channel: AmqpChannel) -> None:
        self._answering[channel] = None
        if not self._is_flush_due:
            self._is_flush_due = True
            self.loop.call_soon(self._flush)

    def flush_soon(self) -> None:
        if not self._is_flush_due:
            self._is_flush_due = True
            self.loop.call_soon(self._flush)

    def forget(self, channel: AmqpChannel) -> None:
        self._answering.pop(channel, None)
        self._channels.pop(channel.number, None)
        self.note_room()

    # For asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Those of other event loops do not derive from it.
        self._transport = cast(asyncio.Transport, transport)
        self._flush()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return self._read

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._read[:nbytes]))

    def data_received(self, data: bytes) -> None:
        self._heard_at = self.loop.time()
        if not self._is_greeted:
            self._is_greeted = True
            if is_tls(data):
                told = GoneError("it speaks TLS")
                told.__cause__ = TlsSpokenError()
                self._hang_up(told)
                return
        machine, channels = self.machine, self._channels
        for event in machine.receive(data):
            # A channel may have been given up here, of which the broker has not heard yet.
            if isinstance(event, events.Message):
                if (channel := channels.get(event.channel)) is not None:
                    self._hand_out(channel, event)
            elif isinstance(event, events.OfConnection):
                self._on_connection(event)
            elif (channel := channels.get(event.channel)) is not None:
                channel.on_event(event)
        if machine.out:
            self.flush_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._reason is None and not self._is_closing:
            if exc is None:
                exc = ConnectionResetError("the broker closed the connection")
                reason = GoneError(str(exc))
            else:
                reason = GoneError(f"the connection was lost: {exc!r}")
            reason.__cause__ = exc
            self._reason = reason
        self._finish()

    def pause_writing(self) -> None:
        self._is_paused = True
        self._look_for_room()

    def resume_writing(self) -> None:
        self._is_paused = False
        self._look_for_room()

    # Inside

    def _look_for_room(self) -> None:
        self.has_room = not self._is_paused and self._unblocked.is_set()
        if self.has_room:
            self.note_room()

    def _hand_out(self, channel: AmqpChannel, message: events.Message) -> None:
        try:
            channel.on_message(message)
        except Exception as error:
            # Others' messages are in the same bytes; this one stays unanswered.
            self.loop.call_exception_handler(
                {"message": "a handler of messages has raised", "exception": error}
            )

    def _on_connection(self, event: events.OfConnection) -> None:
        match event:
            case events.Opened():
                self._opened.set_result(None)
            case events.Blocked():
                self._unblocked.clear()
                self._look_for_room()
            case events.Unblocked():
                self._unblocked.set()
                self._look_for_room()
            case events.LoginFailed(is_offered):
                self._hang_up(LoginRefusedError() if is_offered else NoMechanismError())
            case events.ConnectionClosed(code, text):
                self._hang_up(ConnectionClosedError(code, text))
            case events.Broken(code, text):
                self._hang_up(PeerError(code, text))
            case events.Ended():
                self._hang_up(None)
            case _:
                assert_never(event)

    def _hang_up(self, reason: AmqpError | None) -> None:
        """Nothing more comes that matters; what is written goes out before the end."""
        self._reason = reason
        self._is_closing = True
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def _finish(self) -> None:
        if self._end.done():
            return
        if self._looking is not None:
            self._looking.cancel()
        self._end.set_result(self._reason)
        if not self._opened.done():
            self._opened.set_exception(self._reason or GoneError("the connection was closed"))
            # Read once: whoever waited may have been cancelled.
            self._opened.exception()
        for channel in [*self._channels.values()]:
            channel.end(self._reason)
        self.note_room()

    def _flush(self) -> None:
        self._is_flush_due = False
        self._unwritten = 0
        out = self.machine.out
        if self._answering:
            for channel in self._answering:
                out += channel.take_answers()
            self._answering.clear()
        if out and self._transport is not None:
            self._has_written = True
            data = b"".join(out)
            out.clear()
            if not self._transport.is_closing():
                self._transport.write(data)

    def _look(self) -> None:
        """Whether both sides have given a sign of life lately."""
        if self.is_silent:
            self._is_closing = True
            if self._transport is not None:
                self._transport.abort()
            return
        if not self._has_written:
            self.machine.beat()
            self._flush()
        self._has_written = False
        self._looking = self.loop.call_later(max(1.0, self._heartbeat / 2), self._look)
