"""The watchdog leaves what works alone, and a whole broker may go and come back."""

import asyncio
from datetime import timedelta

import pytest

from durable_worker.protocol.names import Names
from durable_worker.transports.base import Delivery, Envelope
from durable_worker.transports.rabbitmq import (
    Connected,
    ConsumerLost,
    Disconnected,
    RabbitTransport,
)
from tests.broker import BrokerNode
from tests.conformance.transports.inbox import Inbox
from tests.integration.rabbitmq.conftest import States

pytestmark = pytest.mark.broker


async def test_a_healthy_consumer_and_what_it_holds_are_left_alone(
    broker_url: str, names: Names, states: States
) -> None:
    inbox, heard = Inbox[Delivery](), Inbox[Envelope]()
    async with RabbitTransport(
        broker_url, names=names, on_state=states, watchdog=timedelta(milliseconds=20)
    ) as transport:
        await transport.consume([names.results], inbox, prefetch=1)
        await transport.listen(names.control, heard)
        await transport.send(names.results, Envelope("step-result", b"{}", message_id="m"))
        held = await inbox.next()
        with pytest.raises(TimeoutError):
            await inbox.next(within=0.5)
        await held.ack()
    assert not [state for state in states.seen if isinstance(state, ConsumerLost)]


async def test_a_restarted_broker_delivers_what_it_had_taken(
    broker_node: BrokerNode, names: Names, states: States
) -> None:
    inbox = Inbox[Delivery]()
    async with RabbitTransport(broker_node.url(), names=names, on_state=states) as transport:
        await transport.consume([names.results], inbox, prefetch=1)
        await transport.send(names.results, Envelope("step-result", b"1", message_id="1"))
        await transport.send(names.results, Envelope("step-result", b"2", message_id="2"))
        held = await inbox.next()
        await asyncio.to_thread(broker_node.restart)
        await states.until(Disconnected)
        await states.until(Connected, count=2)
        await held.ack()
        again = await inbox.next(within=30)
        assert again.envelope.message_id == "1"
        await again.ack()
        assert (await inbox.next(within=30)).envelope.message_id == "2"
