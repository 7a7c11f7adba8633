"""Work queues: order, acknowledgement, prefetch, release, stopping, the dead queue."""

import asyncio

import pytest

from durable_worker.errors import ConnectionLostError
from durable_worker.protocol.names import Names
from durable_worker.transports.base import (
    DELIVERY_LIMIT,
    ERROR_HEADER,
    Delivery,
    Envelope,
    Transport,
)
from tests.conformance.transports.conftest import NewTransport, entered
from tests.conformance.transports.inbox import Inbox


def numbered(number: int) -> Envelope:
    return Envelope("step-task", b"%d" % number, message_id=f"run:{number}:1")


def bodies(deliveries: list[Delivery]) -> list[bytes]:
    return [delivery.envelope.body for delivery in deliveries]


async def test_messages_come_in_the_order_in_which_they_were_sent(
    transport: Transport, names: Names
) -> None:
    queue = names.tasks("fifo")
    await transport.declare([queue])
    for number in range(20):
        await transport.send(queue, numbered(number))
    inbox = Inbox[Delivery]()
    await transport.consume([queue], inbox, prefetch=50)
    assert bodies(await inbox.take(20)) == [b"%d" % number for number in range(20)]


async def test_every_field_of_an_envelope_arrives_as_it_was_sent(
    transport: Transport, names: Names
) -> None:
    queue = names.results
    inbox = Inbox[Delivery]()
    await transport.consume([queue], inbox, prefetch=1)
    sent = Envelope(
        type="step-result",
        body='{"output":"Grüße"}'.encode(),
        message_id="run-1:3:2",
        protocol=7,
        headers={"durable-error": "no seq", "x-other": "Ωmega"},
    )
    await transport.send(queue, sent)
    delivery = await inbox.next()
    assert (delivery.queue, delivery.delivery_count, delivery.envelope) == (queue, 0, sent)


async def test_a_peer_that_states_no_type_and_no_protocol_is_told_as_such(
    transport: Transport, names: Names
) -> None:
    inbox = Inbox[Delivery]()
    await transport.consume([names.results], inbox, prefetch=1)
    sent = Envelope(type=None, body=b"", message_id="m", protocol=None)
    await transport.send(names.results, sent)
    assert (await inbox.next()).envelope == sent


async def test_an_acked_message_is_gone(new_transport: NewTransport, names: Names) -> None:
    queue = names.tasks("acked")
    transport = new_transport()
    async with transport:
        inbox = Inbox[Delivery]()
        subscription = await transport.consume([queue], inbox, prefetch=10)
        await transport.send(queue, numbered(1))
        await transport.send(queue, numbered(2))
        first, second = await inbox.take(2)
        await first.ack()
        await second.release()
        assert (await inbox.next()).envelope == second.envelope
        await subscription.stop()


async def test_a_released_message_comes_again_with_a_higher_count(
    transport: Transport, names: Names
) -> None:
    inbox = Inbox[Delivery]()
    await transport.consume([names.results], inbox, prefetch=1)
    await transport.send(names.results, numbered(1))
    counts: list[int] = []
    for _ in range(3):
        delivery = await inbox.next()
        counts.append(delivery.delivery_count)
        await delivery.release()
    assert counts == [0, 1, 2]


async def test_answering_a_delivery_twice_does_nothing(transport: Transport, names: Names) -> None:
    inbox = Inbox[Delivery]()
    await transport.consume([names.results], inbox, prefetch=1)
    await transport.send(names.results, numbered(1))
    first = await inbox.next()
    await first.ack()
    await first.release()
    await first.ack()
    await transport.send(names.results, numbered(2))
    second = await inbox.next()
    assert (second.envelope.body, second.delivery_count) == (b"2", 0)
    await second.ack()


async def test_no_more_than_prefetch_messages_of_a_queue_are_out_at_once(
    transport: Transport, names: Names
) -> None:
    queue, other = names.tasks("bounded"), names.tasks("other")
    inbox = Inbox[Delivery]()
    await transport.consume([queue, other], inbox, prefetch=3)
    for number in range(8):
        await transport.send(queue, numbered(number))
    held = await inbox.take(3)
    # The other queue has room of its own, so its message overtakes the five that wait.
    await transport.send(other, numbered(100))
    assert (await inbox.next()).envelope.body == b"100"
    assert bodies(inbox.drain()) == []
    await held[1].ack()
    assert (await inbox.next()).envelope.body == b"3"


async def test_two_consumers_share_a_queue(transport: Transport, names: Names) -> None:
    queue = names.tasks("shared")
    one, two = Inbox[Delivery](), Inbox[Delivery]()
    await transport.consume([queue], one, prefetch=1)
    await transport.consume([queue], two, prefetch=1)
    await transport.send(queue, numbered(1))
    await transport.send(queue, numbered(2))
    assert {(await one.next()).envelope.body, (await two.next()).envelope.body} == {b"1", b"2"}


async def test_after_stop_nothing_comes_but_what_was_taken_can_be_acked(
    transport: Transport, names: Names
) -> None:
    queue = names.tasks("stopped")
    before = Inbox[Delivery]()
    subscription = await transport.consume([queue], before, prefetch=2)
    await transport.send(queue, numbered(1))
    held = await before.next()
    await subscription.stop()
    await transport.send(queue, numbered(2))
    after = Inbox[Delivery]()
    await transport.consume([queue], after, prefetch=2)
    assert (await after.next()).envelope.body == b"2"
    assert len(before) == 0
    await held.ack()
    await transport.send(queue, numbered(3))
    assert (await after.next()).envelope.body == b"3"


async def test_a_queue_tells_how_many_consume_from_it(transport: Transport, names: Names) -> None:
    queue = names.tasks("watched")
    await transport.wait_connected()
    assert await transport.consumers(queue) == 0  # it does not exist
    await transport.declare([queue])
    assert await transport.consumers(queue) == 0
    one = await transport.consume([queue], Inbox[Delivery](), prefetch=1)
    two = await transport.consume([queue], Inbox[Delivery](), prefetch=1)
    await until_consumed(transport, queue, by=2)
    await one.stop()
    await until_consumed(transport, queue, by=1)
    await two.stop()
    await until_consumed(transport, queue, by=0)
    assert await transport.consumers(names.tasks("never-declared")) == 0


async def until_consumed(transport: Transport, queue: str, *, by: int) -> None:
    async with asyncio.timeout(10):
        while await transport.consumers(queue) != by:  # noqa: ASYNC110 - the broker has no event
            await asyncio.sleep(0.02)


async def test_stopping_twice_does_nothing(transport: Transport, names: Names) -> None:
    subscription = await transport.consume([names.results], Inbox[Delivery](), prefetch=2)
    await subscription.stop()
    await subscription.stop()


async def test_what_is_not_acked_when_the_transport_is_left_comes_again(
    new_transport: NewTransport, names: Names
) -> None:
    queue = names.tasks("returned")
    first = new_transport()
    async with first:
        inbox = Inbox[Delivery]()
        await first.consume([queue], inbox, prefetch=5)
        for number in range(3):
            await first.send(queue, numbered(number))
        held = await inbox.take(3)
        await held[1].ack()
    # Memory lives in its instance, a broker outlives every one.
    second = new_transport() if first.is_durable else first
    async with second:
        again = Inbox[Delivery]()
        await second.consume([queue], again, prefetch=5)
        returned = await again.take(2)
        assert [(each.envelope.body, each.delivery_count) for each in returned] == [
            (b"0", 1),
            (b"2", 1),
        ]
        await held[0].ack()
        for each in returned:
            await each.ack()


async def test_a_message_that_is_always_given_back_ends_on_the_dead_queue(
    transport: Transport, names: Names
) -> None:
    queue = names.tasks("poison")
    inbox, dead = Inbox[Delivery](), Inbox[Delivery]()
    await transport.consume([queue], inbox, prefetch=1)
    await transport.consume([names.dead], dead, prefetch=1)
    sent = numbered(13)
    await transport.send(queue, sent)
    for expected in range(DELIVERY_LIMIT + 1):
        delivery = await inbox.next()
        assert delivery.delivery_count == expected
        await delivery.release()
    buried = (await dead.next()).envelope
    assert (buried.type, buried.body, buried.message_id) == (sent.type, sent.body, sent.message_id)
    assert queue in buried.headers[ERROR_HEADER]


async def test_a_transport_that_was_left_says_that_it_is_closed(
    new_transport: NewTransport, names: Names
) -> None:
    transport = new_transport()
    async with transport:
        await transport.declare([names.results])
    with pytest.raises(ConnectionLostError, match="closed"):
        await transport.send(names.results, numbered(1))
    with pytest.raises(ConnectionLostError, match="closed"):
        await transport.consumers(names.results)
    with pytest.raises(ConnectionLostError, match="closed"):
        await transport.consume([names.results], Inbox[Delivery](), prefetch=1)


async def test_an_error_in_the_body_leaves_the_transport_as_it_is(
    new_transport: NewTransport, names: Names
) -> None:
    async def fail_inside() -> None:
        async with entered(new_transport) as transport:
            await transport.declare([names.results])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_inside()


async def test_a_consumer_given_up_while_it_starts_takes_nothing(
    transport: Transport, names: Names
) -> None:
    queue = names.tasks("given-up")
    await transport.declare([queue])
    abandoned, wanted = Inbox[Delivery](), Inbox[Delivery]()
    starting = asyncio.ensure_future(transport.consume([queue], abandoned, prefetch=1))
    await asyncio.sleep(0)
    if starting.cancel():
        await asyncio.wait({starting})
        await transport.consume([queue], wanted, prefetch=5)
        for number in range(3):
            await transport.send(queue, numbered(number))
        assert bodies(await wanted.take(3)) == [b"0", b"1", b"2"]
    assert len(abandoned) == 0


async def test_what_one_worker_does_not_take_or_answer_is_dead_soon(
    transport: Transport, names: Names
) -> None:
    dead, own = Inbox[Delivery](), Inbox[Delivery]()
    await transport.consume([names.dead], dead, prefetch=10)
    queue = names.turns("worker-1")
    subscription = await transport.consume([queue], own, prefetch=1)
    for number in range(3):
        await transport.send(queue, numbered(number))
    answered = await own.next()
    await answered.ack()
    first = await own.next()
    assert bodies([answered, first]) == [b"0", b"1"]
    await subscription.stop()
    await first.release()
    assert sorted(bodies(await dead.take(2))) == [b"1", b"2"]
    assert len(own) == 0
