"""A connection over a socket, with a peer that says what a broker might at the worst moment."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from pamqp import frame
from pamqp.base import Frame
from pamqp.commands import Basic, Channel, Confirm, Connection, Queue

from durable_worker.transports.rabbitmq.amqp.channel import AmqpChannel
from durable_worker.transports.rabbitmq.amqp.connection import AmqpConnection
from durable_worker.transports.rabbitmq.amqp.errors import (
    AmqpError,
    ChannelClosedError,
    ConnectionClosedError,
    GoneError,
    PeerError,
    RejectedError,
    ReturnedError,
)
from durable_worker.transports.rabbitmq.amqp.events import Message
from durable_worker.transports.rabbitmq.amqp.properties import Properties, write_properties
from durable_worker.transports.rabbitmq.lanes import QueueState
from tests.unit.rabbitmq.amqp.peer import LOGIN, content, method, start, tune

pytestmark = pytest.mark.anyio

ANSWERS: dict[type[Frame], Callable[[Frame], Frame]] = {
    Channel.Open: lambda _: Channel.OpenOk(),
    Channel.Close: lambda _: Channel.CloseOk(),
    Confirm.Select: lambda _: Confirm.SelectOk(),
    Basic.Qos: lambda _: Basic.QosOk(),
    Basic.Consume: lambda said: Basic.ConsumeOk(said["consumer_tag"]),  # type: ignore[arg-type]
    Connection.Close: lambda _: Connection.CloseOk(),
}
STATED = write_properties(Properties(message_id="m"))
PATIENCE = 20.0


class Broker:
    """Opens a connection as a broker does, and then answers requests by the table above."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, str]] = []
        self.writer: asyncio.StreamWriter
        self.may_read = asyncio.Event()
        self.may_read.set()
        self._news = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        await reader.readexactly(8)
        writer.write(start() + tune(frame_max=131_072, channel_max=10))
        try:
            while True:
                await self.may_read.wait()
                head = await reader.readexactly(7)
                rest = await reader.readexactly(int.from_bytes(head[3:]) + 1)
                self._on_frame(head + rest)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def until_heard(self, name: str, *, count: int = 1) -> None:
        async with asyncio.timeout(PATIENCE):
            while [said for _, said in self.heard].count(name) < count:
                self._news.clear()
                await self._news.wait()

    def _on_frame(self, data: bytes) -> None:
        _, number, said = frame.unmarshal(data)
        self.heard.append((number, said.name))
        self._news.set()
        if isinstance(said, Connection.Open):
            self.say(method(0, Connection.OpenOk()))
        elif type(said) in ANSWERS:
            self.say(method(number, ANSWERS[type(said)](said)))  # type: ignore[arg-type,index]


@pytest.fixture
async def broker() -> Broker:
    return Broker()


@pytest.fixture
async def connection(broker: Broker) -> AsyncIterator[AmqpConnection]:
    server = await asyncio.start_server(broker.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: AmqpConnection(LOGIN), "127.0.0.1", port)
    await connection.opened()
    yield connection
    broker.may_read.set()
    await connection.close()
    server.close()
    await server.wait_closed()


async def outcome(waiting: Awaitable[object]) -> AmqpError | None:
    async with asyncio.timeout(PATIENCE):
        try:
            await waiting
        except AmqpError as error:
            return error
    return None


def delivered(channel: AmqpChannel, tag: int) -> bytes:
    announced = Basic.Deliver(f"{channel.number}.1", tag, False, "", "q")
    return content(channel.number, announced, Basic.Properties(message_id=str(tag)), b"{}")


async def test_messages_reach_their_handler_and_their_acknowledgements_leave_as_one(
    connection: AmqpConnection, broker: Broker
) -> None:
    channel = await connection.channel()
    tags: list[int] = []

    def answer(message: Message) -> None:
        tags.append(message.tag)
        channel.ack(message.tag)

    await channel.consume("q", answer, is_acked=True)
    broker.say(b"".join(delivered(channel, tag) for tag in range(1, 101)))
    await broker.until_heard("Basic.Ack")
    await channel.close()
    assert tags == [*range(1, 101)]
    assert [said for _, said in broker.heard].count("Basic.Ack") == 1


async def test_nothing_is_said_on_a_channel_that_the_broker_has_closed_in_the_same_breath(
    connection: AmqpConnection, broker: Broker
) -> None:
    channel = await connection.channel(confirms=True)
    published: list[asyncio.Future[None]] = []

    def publish(message: Message) -> None:
        channel.ack(message.tag)
        published.append(channel.publish("", "q", STATED, b"{}"))

    await channel.consume("q", publish, is_acked=True)
    close = method(channel.number, Channel.Close(406, "PRECONDITION_FAILED - no", 60, 80))
    broker.say(delivered(channel, 1) + close)
    ended = await channel.ended()
    assert isinstance(ended, ChannelClosedError)
    (confirm,) = published
    assert isinstance(await outcome(confirm), GoneError | ChannelClosedError)
    again = await connection.channel()
    await again.limit(1)
    names = [said for number, said in broker.heard if number == channel.number]
    assert names[names.index("Channel.CloseOk") + 1] == "Channel.Open"
    assert "Basic.Publish" not in names


async def test_each_confirm_return_and_refusal_reaches_its_publisher(
    connection: AmqpConnection, broker: Broker
) -> None:
    channel = await connection.channel(confirms=True)
    confirms = [channel.publish("", f"q{n}", STATED, b"%d" % n) for n in range(4)]
    await broker.until_heard("Basic.Publish", count=4)
    back = Basic.Return(312, "NO_ROUTE", "", "q1")
    broker.say(
        content(channel.number, back, Basic.Properties(message_id="m"), b"1")
        + method(channel.number, Basic.Ack(3, True))
        + method(channel.number, Basic.Nack(4, False))
    )
    outcomes = [type(await outcome(confirm)) for confirm in confirms]
    assert outcomes == [type(None), ReturnedError, type(None), RejectedError]


async def test_whoever_waits_on_a_connection_that_the_broker_closes_hears_why(
    connection: AmqpConnection, broker: Broker
) -> None:
    channel = await connection.channel(confirms=True)
    confirm = channel.publish("", "q", STATED, b"{}")
    looking = asyncio.ensure_future(channel.look_at_queue("q"))
    await broker.until_heard("Queue.Declare")
    broker.say(method(0, Connection.Close(320, "CONNECTION_FORCED - bye", 0, 0)))
    errors = [await outcome(each) for each in (confirm, looking, channel.limit(1))]
    assert [(type(each), str(each)) for each in errors] == [
        (ConnectionClosedError, "CONNECTION_FORCED - bye")
    ] * 3
    assert len({id(each) for each in errors}) == 3
    assert isinstance(await connection.ended(), ConnectionClosedError)
    assert isinstance(await outcome(connection.channel()), GoneError)


async def test_a_broker_that_sends_nonsense_is_told_so_and_left(
    connection: AmqpConnection, broker: Broker
) -> None:
    broker.say(b"\x01\x00\x00\x00\x00\x00\x04\xff\xff\xff\xff\xce")
    assert isinstance(await connection.ended(), PeerError)
    await broker.until_heard("Connection.Close")


async def test_publishers_wait_while_the_broker_does_not_read(
    connection: AmqpConnection, broker: Broker
) -> None:
    channel = await connection.channel(confirms=True)
    broker.may_read.clear()
    confirms: list[asyncio.Future[None]] = []
    while channel.has_room:
        confirms.append(channel.publish("", "q", STATED, bytes(200_000)))
        await asyncio.sleep(0)
        assert len(confirms) < 1_000
    waiting = asyncio.ensure_future(channel.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    broker.may_read.set()
    assert await outcome(waiting) is None
    assert channel.has_room
    await broker.until_heard("Basic.Publish", count=len(confirms))
    broker.say(method(channel.number, Basic.Ack(len(confirms), True)))
    assert [await outcome(each) for each in confirms] == [None] * len(confirms)


async def test_publishers_wait_through_an_alarm_of_the_broker(
    connection: AmqpConnection, broker: Broker
) -> None:
    channel = await connection.channel(confirms=True)
    broker.say(method(0, Connection.Blocked("low on memory")) + method(1, Channel.Flow(False)))
    await broker.until_heard("Channel.FlowOk")
    assert await connection.is_blocked()
    waiting = asyncio.ensure_future(channel.room())
    broker.say(method(0, Connection.Unblocked()))
    await connection.unblocked()
    await asyncio.sleep(0)
    assert not waiting.done()
    broker.say(method(1, Channel.Flow(True)))
    assert await outcome(waiting) is None


async def test_waiting_for_room_ends_with_the_channel(
    connection: AmqpConnection, broker: Broker
) -> None:
    channel = await connection.channel(confirms=True)
    broker.say(method(1, Channel.Flow(False)))
    await broker.until_heard("Channel.FlowOk")
    waiting = asyncio.ensure_future(channel.room())
    await channel.close()
    assert await outcome(waiting) is None


async def test_a_request_that_is_given_up_costs_those_after_it_nothing(
    connection: AmqpConnection, broker: Broker
) -> None:
    channel = await connection.channel()
    looking = asyncio.ensure_future(channel.look_at_queue("q"))
    await broker.until_heard("Queue.Declare")
    looking.cancel()
    other = asyncio.ensure_future(channel.look_at_queue("other"))
    await broker.until_heard("Queue.Declare", count=2)
    broker.say(method(channel.number, Queue.DeclareOk("q", 1, 1)))
    broker.say(method(channel.number, Queue.DeclareOk("other", 5, 2)))
    async with asyncio.timeout(PATIENCE):
        assert await other == QueueState(waiting=5, consumers=2)


async def test_a_handler_that_raises_costs_no_other_message(
    connection: AmqpConnection, broker: Broker
) -> None:
    channel = await connection.channel()
    reported: list[object] = []
    connection.loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
    got = asyncio.Event()

    def handle(message: Message) -> None:
        if message.tag == 1:
            raise KeyError(message.tag)
        got.set()

    await channel.consume("q", handle, is_acked=True)
    broker.say(delivered(channel, 1) + delivered(channel, 2))
    async with asyncio.timeout(PATIENCE):
        await got.wait()
    connection.loop.set_exception_handler(None)
    assert [repr(each) for each in reported] == ["KeyError(1)"]


async def test_a_channel_whose_opening_is_given_up_is_closed_and_its_number_used_again(
    connection: AmqpConnection, broker: Broker
) -> None:
    opening = asyncio.ensure_future(connection.channel())
    await asyncio.sleep(0)
    opening.cancel()
    await broker.until_heard("Channel.Close")
    async with asyncio.timeout(PATIENCE):
        while (await connection.channel()).number != 1:
            pass


async def test_what_is_posted_is_told_of_as_the_broker_answers_and_what_cannot_go_is_not(
    connection: AmqpConnection, broker: Broker
) -> None:
    channel = await connection.channel(confirms=True)
    told: list[tuple[int, type[BaseException] | None]] = []

    def post(number: int) -> bool:
        stated = write_properties(Properties(message_id=f"m{number}"))
        return channel.post("", "q", stated, b"{}", lambda e: told.append((number, e and type(e))))

    assert [post(number) for number in range(1, 7)] == [True] * 6
    await broker.until_heard("Basic.Publish", count=6)
    returned = Basic.Return(312, "NO_ROUTE", "", "q")
    broker.say(content(channel.number, returned, Basic.Properties(message_id="m3"), b"{}"))
    broker.say(method(channel.number, Basic.Ack(3, True)))
    broker.say(method(channel.number, Basic.Nack(4)))
    broker.say(method(channel.number, Channel.Flow(False)))
    await broker.until_heard("Channel.FlowOk")
    assert told == [(1, None), (2, None), (3, ReturnedError), (4, RejectedError)]
    assert not post(7)
    broker.say(method(channel.number, Channel.Flow(True)))
    await broker.until_heard("Channel.FlowOk", count=2)
    assert post(8)
    broker.say(method(channel.number, Channel.Close(404, "NOT_FOUND", 0, 0)))
    assert isinstance(await channel.ended(), ChannelClosedError)
    assert told[4:] == [(number, ChannelClosedError) for number in (5, 6, 8)]
    assert not post(9)
    assert len(told) == 7
