"""Heartbeats of a thread and frames of the event loop on one connection, with a real broker."""

import asyncio
import time

import pytest

from durable_worker.protocol.names import Names
from durable_worker.transports.base import Delivery, Envelope
from durable_worker.transports.rabbitmq import (
    Connected,
    Disconnected,
    Lane,
    RabbitTransport,
    pulse,
)
from durable_worker.transports.rabbitmq.address import parse_address
from durable_worker.transports.rabbitmq.amqp import connection
from durable_worker.transports.rabbitmq.link import Link, open_link
from durable_worker.transports.rabbitmq.pulse import Pulse
from tests.conformance.transports.inbox import Inbox
from tests.integration.rabbitmq.conftest import States
from tests.integration.rabbitmq.proxy import Proxy

pytestmark = pytest.mark.broker

LARGE = 400_000


class NarrowProxy(Proxy):
    """Passes on to the broker what comes, a few kilobytes at a time."""

    async def _upwards(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while chunk := await source.read(5_000):
            sink.write(chunk)
            await asyncio.sleep(0.0005)
        raise ConnectionResetError


async def test_heartbeats_go_between_large_messages_however_slowly_those_leave(
    broker_url: str, names: Names, states: States, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulse, "LOOKS_PER_HEARTBEAT", 5_000)
    inbox = Inbox[Delivery]()
    bodies = [bytes([65 + n]) * LARGE for n in range(12)]
    async with (
        NarrowProxy(broker_url) as proxy,
        RabbitTransport(proxy.url, names=names, on_state=states) as transport,
        RabbitTransport(broker_url, names=names) as other,
    ):
        await transport.declare([names.results])
        sends = [
            asyncio.ensure_future(
                transport.send(names.results, Envelope("step-result", body, message_id=str(n)))
            )
            for n, body in enumerate(bodies)
        ]
        while not all(send.done() for send in sends):
            await asyncio.sleep(0.02)
            time.sleep(0.01)  # noqa: ASYNC251 - the thread has the connection to itself
        await asyncio.gather(*sends)
        await other.consume([names.results], inbox, prefetch=50)
        arrived = {each.envelope.message_id: each.envelope.body for each in await inbox.take(12)}
    assert arrived == {str(n): body for n, body in enumerate(bodies)}
    assert [state.generation for state in states.seen if isinstance(state, Connected)] == [1]
    assert not [state for state in states.seen if isinstance(state, Disconnected)]


async def opened(url: str, lane: Lane, monkeypatch: pytest.MonkeyPatch) -> tuple[Link, Pulse]:
    # The client's own patience: less than a second instead of three heartbeats and more.
    monkeypatch.setattr(connection, "SILENT_HEARTBEATS", 0.3)
    monkeypatch.setattr("aiormq.connection.Connection.HEARTBEAT_GRACE_MULTIPLIER", 0.3)
    own = Pulse()
    address = parse_address(url)
    link = await open_link(address, name="busy", heartbeat=1, generation=1, pulse=own, lane=lane)
    return link, own


async def test_a_broker_that_nobody_had_the_time_to_read_is_not_taken_for_silent(
    broker_url: str, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, own = await opened(broker_url, lane, monkeypatch)
    time.sleep(1.5)  # noqa: ASYNC251 - heartbeats of the broker have arrived meanwhile
    assert not link.is_silent
    await asyncio.sleep(0)
    assert not link.is_lost
    await link.close()
    own.stop()


async def test_a_broker_that_says_nothing_is_silent_however_busy_the_loop_was(
    broker_url: str, lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Proxy(broker_url) as proxy:
        link, own = await opened(proxy.url, lane, monkeypatch)
        proxy.freeze()
        time.sleep(1.5)  # noqa: ASYNC251
        assert link.is_silent
        async with asyncio.timeout(10):
            await link.lost()
        await link.close()
        own.stop()
