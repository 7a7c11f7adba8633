"""A message whose properties nobody can decode costs no consumer its connection."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import aiormq
import pamqp.frame
import pytest
from aiormq import spec
from pamqp.frame import FrameTypes

from durable_worker.protocol.names import Names
from durable_worker.transports.base import Delivery, Envelope
from durable_worker.transports.rabbitmq import RabbitTransport
from durable_worker.transports.rabbitmq.states import Disconnected, TransportState
from tests.conformance.transports.inbox import Inbox

pytestmark = [pytest.mark.anyio, pytest.mark.broker]

AT = datetime(2020, 1, 1, tzinfo=UTC)
SECONDS = struct.pack(">Q", int(AT.timestamp()))
MARK, NOT_UTF8 = b"MARK-", b"\xff\xfe\xff\xfe\xff"
Properties = spec.Basic.Properties


@contextmanager
def on_the_wire(before: bytes, after: bytes) -> Iterator[None]:
    """What is sent from this process meanwhile has `after` where it had `before`."""
    marshal = pamqp.frame.marshal

    def spoiling(frame: FrameTypes, channel: int) -> bytes:
        return marshal(frame, channel).replace(before, after)

    pamqp.frame.marshal = spoiling
    try:
        yield
    finally:
        pamqp.frame.marshal = marshal


async def publish(
    url: str, queue: str, properties: Properties, before: bytes, after: bytes
) -> None:
    connection = await aiormq.connect(url)
    try:
        channel = await connection.channel()
        with on_the_wire(before, after):
            await channel.basic_publish(
                b"{}", routing_key=queue, properties=properties, mandatory=True
            )
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("properties", "before", "after"),
    [
        (Properties(message_id="MARK-"), MARK, NOT_UTF8),
        (Properties(message_type="MARK-"), MARK, NOT_UTF8),
        (Properties(headers={"MARK-": "x"}), MARK, NOT_UTF8),
        (Properties(headers={"x": "MARK-"}), MARK, NOT_UTF8),
        (Properties(timestamp=AT), SECONDS, b"\xff" * 8),
        (Properties(headers={"x": AT, "durable-error": "because"}), SECONDS, b"\x7f" + b"\xff" * 7),
        (Properties(headers={"x": [{"y": [{"z": AT}]}]}), SECONDS, b"\x7f" + b"\xff" * 7),
    ],
    ids=["message id", "type", "header name", "header", "timestamp", "instant", "nested instant"],
)
async def test_a_message_with_a_property_that_cannot_be_decoded_arrives_over_the_same_connection(
    broker_url: str, prefix: str, properties: Properties, before: bytes, after: bytes
) -> None:
    names = Names(prefix=prefix)
    inbox = Inbox[Delivery]()
    states: list[TransportState] = []
    async with RabbitTransport(broker_url, names=names, on_state=states.append) as transport:
        await transport.consume([names.results], inbox, prefetch=5)
        await publish(broker_url, names.results, properties, before, after)
        spoiled = await inbox.next(within=30)
        await transport.send(names.results, Envelope("x", b"{}", "good"))
        good = await inbox.next(within=30)
        for each in (spoiled, good):
            await each.ack()
    assert (spoiled.envelope.body, spoiled.delivery_count) == (b"{}", 0)
    assert good.envelope.message_id == "good"
    if properties.headers and "durable-error" in properties.headers:
        assert spoiled.envelope.headers == {"durable-error": "because"}
    assert not [each for each in states if isinstance(each, Disconnected)]


async def test_a_broadcast_with_a_topic_that_is_not_text_arrives_over_the_same_connection(
    broker_url: str, prefix: str
) -> None:
    names = Names(prefix=prefix)
    inbox = Inbox[Envelope]()
    states: list[TransportState] = []
    async with RabbitTransport(broker_url, names=names, on_state=states.append) as transport:
        await transport.listen(names.control, inbox)
        connection = await aiormq.connect(broker_url)
        channel = await connection.channel()
        with on_the_wire(MARK, NOT_UTF8):
            await channel.basic_publish(b"1", exchange=names.control, routing_key="MARK-")
        await channel.basic_publish(b"2", exchange=names.control, routing_key="")
        assert [(await inbox.next(within=30)).body for _ in range(2)] == [b"1", b"2"]
        await connection.close()
    assert not [each for each in states if isinstance(each, Disconnected)]


async def test_a_message_with_headers_as_large_as_the_broker_takes_can_be_buried(
    broker_url: str, prefix: str
) -> None:
    from durable_worker.transports.dead_letters import dead_letter

    names = Names(prefix=prefix)
    inbox, dead = Inbox[Delivery](), Inbox[Delivery]()
    huge = {"durable-resent": "1", "x": "y" * 60_000, "z": "y" * 65_000}
    async with RabbitTransport(broker_url, names=names) as transport:
        await transport.consume([names.results], inbox, prefetch=5)
        await transport.consume([names.dead], dead, prefetch=5)
        await transport.send(names.results, Envelope("x", b"{}", "m", headers=huge))
        delivery = await inbox.next(within=30)
        await transport.send(names.dead, dead_letter(delivery.envelope, "reason " * 10_000))
        await delivery.ack()
        letter = await dead.next(within=30)
        await letter.ack()
    assert letter.envelope.headers.keys() == {"durable-resent", "x", "durable-error"}
    assert "1 headers were too large to keep" in letter.envelope.headers["durable-error"]
