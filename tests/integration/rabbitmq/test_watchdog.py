"""The watchdog leaves what works alone, and a whole broker may go and come back."""

import asyncio
from datetime import timedelta

import aio_pika
import pytest

from durable_worker.protocol.names import Names
from durable_worker.transports.base import Delivery, Envelope
from durable_worker.transports.rabbitmq import (
    Connected,
    ConsumerLost,
    Disconnected,
    RabbitTransport,
)
from durable_worker.transports.rabbitmq.topology import queue_arguments
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


async def test_what_a_broker_keeps_for_a_consumer_that_it_lost_comes_after_all(
    broker_url: str, names: Names, states: States
) -> None:
    """RabbitMQ 3.10 takes the consumer of a queue that is deleted and made anew at once over to the
    new queue without a word, counts it there, hands out messages to it, and never sends them."""
    queue = names.tasks("greet")
    inbox = Inbox[Delivery]()
    async with (
        RabbitTransport(
            broker_url, names=names, on_state=states, watchdog=timedelta(seconds=0.3)
        ) as transport,
        await aio_pika.connect(broker_url) as connection,
    ):
        await transport.consume([queue], inbox, prefetch=10)
        await transport.send(queue, Envelope("step-task", b"{}", message_id="held"))
        held = await inbox.next()
        channel = await connection.channel()
        await channel.queue_delete(queue)
        await channel.declare_queue(
            queue, durable=True, arguments={**queue_arguments(queue, names)}
        )
        for n in range(3):
            await transport.send(queue, Envelope("step-task", b"{}", message_id=str(n)))
        await held.ack()  # what is held keeps its channel, and so does what the broker keeps there
        arrived = [each.envelope.message_id for each in await inbox.take(3, within=20)]
        assert sorted(arrived, key=str) == ["0", "1", "2"]
    assert not [state for state in states.seen if isinstance(state, Disconnected)]


async def test_an_idle_consumer_is_replaced_without_a_loss_and_what_was_taken_stays_taken(
    broker_url: str, names: Names, states: States
) -> None:
    queue = names.tasks("greet")
    inbox = Inbox[Delivery]()
    async with RabbitTransport(
        broker_url, names=names, on_state=states, watchdog=timedelta(milliseconds=20)
    ) as transport:
        await transport.consume([queue], inbox, prefetch=100)
        taken: list[Delivery] = []
        for n in range(30):
            await transport.send(queue, Envelope("step-task", b"{}", message_id=str(n)))
            taken.append(await inbox.next())
            await asyncio.sleep(0.08)
        assert [each.envelope.message_id for each in taken] == [str(n) for n in range(30)]
        # A message that meets the end of its consumer is handed out once more, but came to us once.
        assert {each.delivery_count for each in taken} <= {0, 1}
        for each in taken:
            await each.ack()
        with pytest.raises(TimeoutError):
            await inbox.next(within=0.5)
        assert not len(inbox)
    assert not [state for state in states.seen if isinstance(state, ConsumerLost)]
