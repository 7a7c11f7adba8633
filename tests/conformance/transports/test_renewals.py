"""Keeping a message beyond the time that a broker gives for its answer."""

import asyncio
from random import Random

import pytest

from durable_worker.errors import ConnectionLostError
from durable_worker.protocol.names import Names
from durable_worker.transports.base import Delivery, Envelope, Transport
from durable_worker.worker.steps import may_repeat
from tests.conformance.transports.conftest import NewTransport
from tests.conformance.transports.inbox import Inbox


def numbered(number: int) -> Envelope:
    return Envelope("step-task", b"%d" % number, message_id=f"run:{number}:1")


async def taken(transport: Transport, queue: str, *, prefetch: int = 10) -> Inbox[Delivery]:
    inbox = Inbox[Delivery]()
    await transport.consume([queue], inbox, prefetch=prefetch)
    return inbox


async def marked_end(transport: Transport, queue: str, inbox: Inbox[Delivery]) -> list[bytes]:
    """What still comes from the queue, up to a message that is sent now."""
    await transport.send(queue, Envelope("step-task", b"end", message_id="end"))
    bodies: list[bytes] = []
    while (delivery := await inbox.next()).envelope.body != b"end":
        bodies.append(delivery.envelope.body)
    await delivery.ack()
    return bodies


async def test_a_renewed_message_that_is_acked_is_gone(
    new_transport: NewTransport, names: Names
) -> None:
    queue = names.tasks("renewed")
    first = new_transport()
    async with first:
        inbox = await taken(first, queue)
        await first.send(queue, numbered(1))
        delivery = await inbox.next()
        for _ in range(3):
            await delivery.renew()
        assert (delivery.delivery_count, delivery.envelope) == (0, numbered(1))
        await delivery.ack()
        assert await marked_end(first, queue, inbox) == []
    second = new_transport() if first.is_durable else first
    async with second:
        assert await marked_end(second, queue, await taken(second, queue)) == []


async def test_a_renewed_message_that_is_released_comes_again(
    transport: Transport, names: Names
) -> None:
    queue = names.tasks("released")
    inbox = await taken(transport, queue, prefetch=1)
    await transport.send(queue, numbered(1))
    for _ in range(3):
        delivery = await inbox.next()
        assert delivery.envelope.body == b"1"
        await delivery.renew()
        await delivery.release()
    await (await inbox.next()).ack()
    assert await marked_end(transport, queue, inbox) == []


async def test_a_renewed_message_counts_among_those_that_are_out(
    transport: Transport, names: Names
) -> None:
    queue, other = names.tasks("bounded"), names.tasks("other")
    inbox = Inbox[Delivery]()
    await transport.consume([queue, other], inbox, prefetch=3)
    for number in range(8):
        await transport.send(queue, numbered(number))
    held = await inbox.take(3)
    for each in held[:2]:
        await each.renew()
    await asyncio.gather(*(each.renew() for each in held))
    await transport.send(other, numbered(100))
    assert (await inbox.next()).envelope.body == b"100"
    assert len(inbox) == 0
    for number, answered in enumerate([held[2], held[0], held[1]]):
        await answered.ack()
        assert (await inbox.next()).envelope.body == b"%d" % (number + 3)
        assert len(inbox) == 0


async def test_a_window_that_was_narrowed_opens_again_to_its_full_width(
    transport: Transport, names: Names
) -> None:
    queue = names.tasks("wide")
    inbox = await taken(transport, queue, prefetch=20)
    for number in range(20):
        await transport.send(queue, numbered(number))
    renewed = await inbox.take(20)
    await asyncio.gather(*(each.renew() for each in renewed[:15]))
    for each in renewed:
        await each.ack()
    for number in range(20, 45):
        await transport.send(queue, numbered(number))
    again = await inbox.take(20)
    assert len(inbox) == 0
    for each in again:
        await each.ack()
    assert sorted(int(each.envelope.body) for each in [*again, *await inbox.take(5)]) == [
        *range(20, 45)
    ]


@pytest.mark.parametrize("answer", ["ack", "release"])
async def test_renewing_an_answered_message_does_nothing(
    transport: Transport, names: Names, answer: str
) -> None:
    queue = names.tasks("answered")
    inbox = await taken(transport, queue)
    await transport.send(queue, numbered(1))
    delivery = await inbox.next()
    await getattr(delivery, answer)()
    await delivery.renew()
    await delivery.ack()
    if answer == "release":
        await (await inbox.next()).ack()
    assert await marked_end(transport, queue, inbox) == []


async def test_an_answer_beside_a_renewal_is_the_only_one(
    transport: Transport, names: Names
) -> None:
    queue, messages, random = names.tasks("racing"), 120, Random(7)
    inbox = await taken(transport, queue, prefetch=40)
    for number in range(messages):
        await transport.send(queue, numbered(number))
    acked: list[int] = []
    all_acked = asyncio.Event()

    async def work(delivery: Delivery) -> None:
        renewals = [asyncio.ensure_future(delivery.renew()) for _ in range(random.randrange(3))]
        for _ in range(random.randrange(12)):
            await asyncio.sleep(0)
        if renewals and random.random() < 0.2:
            renewals[0].cancel()
        if random.random() < 0.3:
            await delivery.release()
        else:
            await delivery.ack()
            acked.append(int(delivery.envelope.body))
            if len(acked) == messages:
                all_acked.set()
        await asyncio.gather(*renewals, return_exceptions=True)

    async def work_on_all(group: asyncio.TaskGroup) -> None:
        while True:
            group.create_task(work(await inbox.next(within=60)))

    async with asyncio.TaskGroup() as group:
        working = group.create_task(work_on_all(group))
        await all_acked.wait()
        working.cancel()
    assert sorted(acked) == [*range(messages)]
    assert await marked_end(transport, queue, inbox) == []


async def test_a_renewed_message_that_nobody_answered_comes_again_as_one_that_may_have_run(
    new_transport: NewTransport, names: Names
) -> None:
    queue = names.tasks("orphaned")
    first = new_transport()
    async with first:
        inbox = await taken(first, queue)
        await first.send(queue, numbered(1))
        delivery = await inbox.next()
        await delivery.renew()
        await delivery.renew()
    second = new_transport() if first.is_durable else first
    async with second:
        again = await (await taken(second, queue)).next(within=20)
        assert again.envelope.body == b"1"
        assert may_repeat(again)
        await again.ack()


async def test_a_closed_transport_renews_nothing(new_transport: NewTransport, names: Names) -> None:
    transport = new_transport()
    async with transport:
        inbox = await taken(transport, names.results)
        await transport.send(names.results, numbered(1))
        delivery = await inbox.next()
    try:
        async with asyncio.timeout(5):
            await delivery.renew()
    except ConnectionLostError:
        pass
