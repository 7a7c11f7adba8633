"""The client below aio-pika, behind the interface of ours. Imported only where it is asked for."""

import asyncio
import logging
from collections.abc import Callable
from ssl import SSLContext
from typing import Any, cast

from aiormq import spec
from aiormq.abc import AbstractChannel, DeliveredMessage
from aiormq.channel import Channel as LibraryChannel
from aiormq.connection import (
    Connection as LibraryConnection,
)
from aiormq.connection import (
    FrameReceiver,
    ReceivedFrame,
    TransportFactory,
)
from aiormq.exceptions import (
    AMQPConnectionError,
    ConnectionClosed,
    ProbableAuthenticationError,
)
from pamqp.base import Frame
from pamqp.frame import FrameTypes
from yarl import URL

from durable_worker.transports.rabbitmq.address import BrokerAddress
from durable_worker.transports.rabbitmq.amqp.errors import (
    ACCESS_REFUSED,
    AmqpError,
    GoneError,
)
from durable_worker.transports.rabbitmq.amqp.events import Message
from durable_worker.transports.rabbitmq.amqp.properties import read_properties
from durable_worker.transports.rabbitmq.fallback_errors import error_of, spoken
from durable_worker.transports.rabbitmq.frames import Frames, library_properties, own_properties
from durable_worker.transports.rabbitmq.greeting import expect_amqp
from durable_worker.transports.rabbitmq.lanes import Arguments, Handler, QueueState
from durable_worker.transports.rabbitmq.sockets import Sockets

CLOSE_SECONDS = 2.0
"""How long the broker gets to say goodbye."""

# The library logs each failed attempt as an error, which would land on the terminal of a program
# that has not set up logging; our own states tell the same in one line.
logging.getLogger("aiormq").addHandler(logging.NullHandler())


async def connect(
    address: BrokerAddress,
    sockets: Sockets,
    context: SSLContext | None,
    *,
    name: str,
    heartbeat: int,
) -> "FallbackConnection":
    """Raises `AmqpError`, `OSError`."""
    query = {**address.options, "heartbeat": str(heartbeat), "name": name}
    url = URL(address.url).with_query(query)
    connection = _Connection(url, sockets=sockets, context=context)
    with spoken():
        await connection.connect()  # pyright: ignore[reportUnknownMemberType]
    return FallbackConnection(connection, sockets)


class _Handshake(FrameReceiver):
    """Frames of the handshake, where the broker may say no instead of going on."""

    def __init__(self, frames: FrameReceiver) -> None:
        super().__init__(frames.reader)
        self._frames = frames

    async def get_frame(self) -> ReceivedFrame:
        received = await self._frames.get_frame()
        frame = received[2]
        if isinstance(frame, spec.Connection.Close):
            if frame.reply_code == ACCESS_REFUSED:
                raise ProbableAuthenticationError(frame.reply_text)
            raise ConnectionClosed(frame.reply_code, frame.reply_text)
        return received


class _Factory(TransportFactory):
    def __init__(self, sockets: Sockets, context: SSLContext | None) -> None:
        self._sockets = sockets
        self._context = context

    async def create(self, url: URL, **_: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        assert url.host is not None
        assert url.port is not None
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        try:
            transport, protocol = await self._sockets.connect(
                url.host,
                url.port,
                lambda: asyncio.StreamReaderProtocol(reader, loop=loop),
                context=self._context,
            )
        except OSError as error:
            raise AMQPConnectionError(*error.args) from error
        if self._context is None:
            expect_amqp(reader)
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


class _Connection(LibraryConnection):
    """Keeps the broker's reason for a refused virtual host, which the library loses; takes no
    broker for silent from which something has come that nobody had the time to read; and survives
    messages whose properties cannot be decoded, over which the library closes the connection."""

    def __init__(self, url: URL, *, sockets: Sockets, context: SSLContext | None) -> None:
        super().__init__(url, context=context, transport_factory=_Factory(sockets, context))
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
        frames = _Handshake(frame_receiver)
        return await LibraryConnection._rpc(request, writer, frames, wait_response)


class FallbackConnection:
    """What it offers is in `lanes.Connection`."""

    def __init__(self, connection: _Connection, sockets: Sockets) -> None:
        self._connection = connection
        self._sockets = sockets
        self.is_limited = False

    async def channel(self, *, confirms: bool = False) -> "FallbackChannel":
        with spoken():
            channel = await self._connection.channel(publisher_confirms=confirms)
        assert isinstance(channel, LibraryChannel)
        return FallbackChannel(self, channel)

    @property
    def is_closed(self) -> bool:
        return self._connection.is_closed

    async def ended(self) -> BaseException | None:
        return await _ended(self._connection)

    @property
    def is_silent(self) -> bool:
        return self._connection.is_connection_was_stuck

    async def is_blocked(self) -> bool:
        try:
            async with asyncio.timeout(0.01):
                await self._connection.ready()
        except TimeoutError:
            return True
        return False

    async def unblocked(self) -> None:
        await self._connection.ready()

    async def close(self) -> None:
        if not await _within(CLOSE_SECONDS, self._connection):
            self._sockets.cut()
            await _within(CLOSE_SECONDS, self._connection)
        # The library leaves whoever waits for room in the write queue of a dead connection waiting.
        queue = cast(asyncio.Queue[object], self._connection.write_queue)  # pyright: ignore[reportUnknownMemberType]
        while not queue.empty():
            queue.get_nowait()
            await asyncio.sleep(0)


class FallbackChannel:
    """What it offers is in `lanes.Channel`."""

    has_room = True
    """The library lets a publisher wait where it writes."""

    def __init__(self, connection: FallbackConnection, channel: LibraryChannel) -> None:
        self.connection = connection
        self._channel = channel
        self._former = ""
        self._publishing: dict[str, asyncio.Future[None]] = {}
        self._writing: set[asyncio.Task[None]] = set()

    @property
    def is_closed(self) -> bool:
        return self._channel.is_closed

    async def ended(self) -> AmqpError | None:
        error = await _ended(self._channel)
        return None if error is None else error_of(error)

    def on_end(self, callback: Callable[[], None]) -> None:
        _closing_of(self._channel).add_done_callback(lambda _: callback())

    def on_consumer_end(self, callback: Callable[[], None]) -> None:
        self._channel.on_consumer_cancel_callbacks.add(lambda _: callback())

    async def look_at_queue(self, queue: str) -> QueueState:
        with spoken():
            found = await self._channel.queue_declare(queue, passive=True)
        return QueueState(waiting=found.message_count or 0, consumers=found.consumer_count or 0)

    async def declare_queue(self, queue: str, arguments: Arguments) -> None:
        with spoken():
            await self._channel.queue_declare(queue, durable=True, arguments={**arguments})

    async def declare_own_queue(self, arguments: Arguments) -> str:
        with spoken():
            declared = await self._channel.queue_declare(
                "", exclusive=True, auto_delete=True, arguments={**arguments}
            )
        return str(declared.queue)

    async def delete_queue(self, queue: str) -> None:
        with spoken():
            await self._channel.queue_delete(queue)

    async def look_at_exchange(self, exchange: str, kind: str) -> None:
        with spoken():
            await self._channel.exchange_declare(exchange, exchange_type=kind, passive=True)

    async def declare_exchange(self, exchange: str, kind: str, *, is_passing: bool = False) -> None:
        with spoken():
            await self._channel.exchange_declare(
                exchange, exchange_type=kind, durable=not is_passing, auto_delete=is_passing
            )

    async def bind(self, queue: str, exchange: str, routing_key: str) -> None:
        with spoken():
            await self._channel.queue_bind(queue, exchange, routing_key)

    async def limit(self, prefetch: int) -> None:
        with spoken():
            await self._channel.basic_qos(prefetch_count=prefetch)

    async def consume(self, queue: str, handler: Handler, *, is_acked: bool) -> str:
        async def receive(message: DeliveredMessage) -> None:
            tag = message.delivery_tag or 0
            properties = own_properties(message.header.properties)
            handler(Message(0, b"", tag, properties, message.body))

        with spoken():
            consuming = await self._channel.basic_consume(queue, receive, no_ack=not is_acked)
        return str(consuming.consumer_tag)

    async def cancel(self, consumer: str) -> None:
        receive = self._channel.consumers.get(consumer)
        with spoken():
            await self._channel.basic_cancel(consumer)
        # What was on its way may still come, and the library would drop it.
        self._channel.consumers.pop(self._former, None)
        if receive is not None:
            self._channel.consumers[consumer] = receive
        self._former = consumer

    def consumes(self, consumer: str) -> bool:
        return consumer != self._former and consumer in self._channel.consumers

    def ack(self, tag: int) -> None:
        self._write(self._acked(tag))

    def nack(self, tag: int, *, requeue: bool) -> None:
        self._write(self._nacked(tag, requeue=requeue))

    async def room(self) -> None:
        """There is always some."""

    async def publish(
        self, exchange: str, routing_key: str, properties: bytes, body: bytes
    ) -> None:
        stated = library_properties(read_properties(properties))
        if stated.message_id is None:
            return await self._publish(exchange, routing_key, stated, body, mandatory=True)
        # The library finds the publish that a returned message belongs to by message id alone, so
        # one id is never in flight twice.
        while (earlier := self._publishing.get(stated.message_id)) is not None:
            await asyncio.wait({earlier})
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._publishing[stated.message_id] = done
        try:
            return await self._publish(exchange, routing_key, stated, body, mandatory=True)
        finally:
            del self._publishing[stated.message_id]
            done.set_result(None)

    def post(
        self,
        exchange: str,
        routing_key: str,
        properties: bytes,
        body: bytes,
        told: Callable[[AmqpError | OSError | None], None],
    ) -> bool:
        if self.is_closed:
            return False

        async def tell() -> None:
            try:
                await self.publish(exchange, routing_key, properties, body)
            except (AmqpError, OSError) as error:
                told(error)
            except asyncio.CancelledError:
                told(GoneError("the connection was closed"))
                raise
            else:
                told(None)

        self._write(tell())
        return True

    def broadcast(self, exchange: str, routing_key: str, properties: bytes, body: bytes) -> None:
        stated = library_properties(read_properties(properties))
        self._write(self._publish(exchange, routing_key, stated, body, mandatory=False))

    async def close(self) -> None:
        if self._writing:
            await asyncio.wait(self._writing, timeout=CLOSE_SECONDS)
        await _within(CLOSE_SECONDS, self._channel)

    async def _publish(
        self,
        exchange: str,
        routing_key: str,
        properties: spec.Basic.Properties,
        body: bytes,
        *,
        mandatory: bool,
    ) -> None:
        with spoken():
            await self._channel.basic_publish(
                body,
                exchange=exchange,
                routing_key=routing_key,
                properties=properties,
                mandatory=mandatory,
                wait=False,
            )

    async def _acked(self, tag: int) -> None:
        with spoken():
            await self._channel.basic_ack(tag, wait=False)

    async def _nacked(self, tag: int, *, requeue: bool) -> None:
        with spoken():
            await self._channel.basic_nack(tag, requeue=requeue, wait=False)

    def _write(self, writing: "Any") -> None:
        task = asyncio.ensure_future(writing)
        self._writing.add(task)
        task.add_done_callback(self._written)

    def _written(self, task: "asyncio.Task[None]") -> None:
        self._writing.discard(task)
        if not task.cancelled():
            task.exception()  # the channel is gone, and whoever uses it will see


async def _ended(resource: LibraryConnection | AbstractChannel) -> BaseException | None:
    """Wait until a connection or channel is closed, by whomever; the reason if there is one."""
    closing = _closing_of(resource)
    await asyncio.wait({closing})
    return None if closing.cancelled() else closing.exception()


def _closing_of(resource: LibraryConnection | AbstractChannel) -> asyncio.Future[object]:
    return cast(asyncio.Future[object], resource.closing)  # pyright: ignore[reportUnknownMemberType]


async def _within(seconds: float, resource: LibraryConnection | LibraryChannel) -> bool:
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
