"""Messages that are renewed: where they are, who gets them, and what a count says of them."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from random import Random

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel

from durable_worker.errors import BrokerRefusedError, ConnectionLostError, HeadersTooLargeError
from durable_worker.protocol.names import Names
from durable_worker.transports.base import DEATH_HEADER, DELIVERY_LIMIT, Delivery, Envelope
from durable_worker.transports.rabbitmq import Connected, Disconnected, Lane, RabbitTransport
from durable_worker.worker.steps import may_repeat
from tests.broker import BrokerNode
from tests.conformance.transports.inbox import Inbox
from tests.integration.rabbitmq.conftest import States
from tests.integration.rabbitmq.proxy import Proxy

pytestmark = pytest.mark.broker

LONG = timedelta(seconds=30)
SHORT = timedelta(milliseconds=300)


def numbered(number: int) -> Envelope:
    return Envelope("step-task", b"%d" % number, message_id=f"run:{number}:1")


@asynccontextmanager
async def raw(url: str) -> AsyncIterator[AbstractChannel]:
    async with await aio_pika.connect(url) as connection:
        yield await connection.channel()


async def test_a_copy_that_its_holder_left_behind_says_what_the_protocol_says(
    broker_url: str, proxy: Proxy, names: Names
) -> None:
    queue = names.tasks("orphan")
    inbox = Inbox[Delivery]()
    async with RabbitTransport(proxy.url, names=names, held_for=SHORT) as holder:
        await holder.consume([queue], inbox, prefetch=1)
        await holder.send(
            queue, Envelope("step-task", b"{}", "r:1:1", headers={"durable-resent": "1"})
        )
        await (await inbox.next()).release()
        delivery = await inbox.next()
        await delivery.renew()
        await delivery.renew()
        await heard(holder)
        await proxy.go_away()
        async with raw(broker_url) as channel:
            found = await until_got(channel, queue)
    assert found.routing_key == queue
    assert (found.body, found.message_id, found.type) == (b"{}", "r:1:1", "step-task")
    headers = found.headers
    held, _, number = str(headers["durable-held"]).rpartition(":")
    assert held.startswith(f"{names.effective_prefix}-held-")
    assert number == "1"
    assert (headers["durable-deliveries"], headers["durable-resent"]) == ("1", "1")
    assert headers["durable-protocol"] == 1
    deaths = headers["x-death"]
    assert isinstance(deaths, list)
    assert [(each["reason"], each["queue"]) for each in deaths if isinstance(each, dict)] == [
        ("expired", held)
    ]


async def heard(transport: RabbitTransport) -> None:
    """The broker has read all that was sent over the connection that consumes."""
    await transport.consumers("any")


async def until_got(channel: AbstractChannel, queue: str) -> aio_pika.abc.AbstractIncomingMessage:
    """The next message of a queue, acknowledged."""
    declared = await channel.get_queue(queue)
    async with asyncio.timeout(20):
        while (found := await declared.get(fail=False, no_ack=True)) is None:  # noqa: ASYNC110 - polled
            await asyncio.sleep(0.05)
    return found


async def test_a_holder_that_comes_back_in_time_keeps_its_messages(
    broker_url: str, proxy: Proxy, names: Names, states: States
) -> None:
    queue = names.tasks("kept")
    mine, theirs = Inbox[Delivery](), Inbox[Delivery]()
    async with (
        RabbitTransport(proxy.url, names=names, held_for=LONG, on_state=states) as holder,
        RabbitTransport(broker_url, names=names) as rival,
    ):
        await holder.consume([queue], mine, prefetch=10)
        for number in range(10):
            await holder.send(queue, numbered(number))
        deliveries = await mine.take(10)
        await asyncio.gather(*(each.renew() for each in deliveries))
        await rival.consume([queue], theirs, prefetch=10)
        for cuts in range(1, 4):
            proxy.cut()
            await states.until(Connected, count=cuts + 1)
            # One answered while nobody could hear it; the others are renewed on the new connection.
            await deliveries.pop().ack()
            await asyncio.gather(*(renewed(each) for each in deliveries))
        for each in deliveries:
            await each.ack()
        await rival.send(queue, Envelope("step-task", b"end", "end"))
        assert (await theirs.next()).envelope.body == b"end"
        assert (len(mine), len(theirs)) == (0, 0)
    async with raw(broker_url) as channel:
        assert (await channel.get_queue(queue)).declaration_result.message_count == 1


async def renewed(delivery: Delivery) -> None:
    """Renew it as soon as its connection is back."""
    async with asyncio.timeout(20):
        while True:
            try:
                await delivery.renew()
            except ConnectionLostError:
                await asyncio.sleep(0.05)
            else:
                return


async def test_each_holder_that_dies_counts_until_the_message_is_given_up(
    broker_url: str, proxy: Proxy, names: Names
) -> None:
    queue = names.tasks("deadly")
    dead = Inbox[Delivery]()
    async with RabbitTransport(broker_url, names=names) as operator:
        await operator.consume([names.dead], dead, prefetch=1)
        await operator.declare([queue])
        await operator.send(queue, numbered(1))
        for expected in range(DELIVERY_LIMIT + 1):
            inbox = Inbox[Delivery]()
            async with RabbitTransport(proxy.url, names=names, held_for=SHORT) as holder:
                await holder.consume([queue], inbox, prefetch=1)
                delivery = await inbox.next()
                assert delivery.delivery_count == expected
                await delivery.renew()
                await heard(holder)
                await proxy.go_away()
            await proxy.listen()
        async with RabbitTransport(broker_url, names=names) as last:
            await last.consume([queue], inbox, prefetch=1)
            letter = (await dead.next()).envelope
            assert len(inbox) == 0
    assert (letter.body, letter.message_id) == (b"1", "run:1:1")
    assert letter.headers[DEATH_HEADER] == "delivery_limit"
    assert letter.headers["x-first-death-queue"] == queue
    assert queue in letter.headers["durable-error"]


async def test_a_message_given_back_comes_at_once_and_uncharged(
    broker_url: str, names: Names
) -> None:
    queue = names.tasks("given-back")
    one, other = Inbox[Delivery](), Inbox[Delivery]()
    async with (
        RabbitTransport(broker_url, names=names, held_for=LONG) as first,
        RabbitTransport(broker_url, names=names, held_for=LONG) as second,
    ):
        subscription = await first.consume([queue], one, prefetch=1)
        await first.send(queue, numbered(1))
        delivery = await one.next()
        await delivery.renew()
        await subscription.stop()
        await delivery.release()
        await second.consume([queue], other, prefetch=1)
        again = await other.next()
        assert (again.envelope.body, again.delivery_count) == (b"1", 0)
        assert may_repeat(again)
        assert DEATH_HEADER not in again.envelope.headers
        await again.renew()
        await again.ack()


async def exists(url: str, queue: str) -> bool:
    async with raw(url) as channel:
        try:
            await channel.declare_queue(queue, passive=True)
        except aio_pika.exceptions.ChannelNotFoundEntity:
            return False
    return True


async def test_the_queue_is_removed_at_the_end_unless_something_may_be_on_its_way_out_of_it(
    broker_url: str, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    monkeypatch.setattr(
        Names, "held", lambda self, holder: made.append(f"{self.prefix}-held-{holder}") or made[-1]
    )
    inbox = Inbox[Delivery]()
    for answer in ("ack", "release"):
        async with RabbitTransport(broker_url, names=names) as transport:
            await transport.consume([names.tasks("removed")], inbox, prefetch=1)
            await transport.send(names.tasks("removed"), numbered(1))
            delivery = await inbox.next()
            await delivery.renew()
            assert await exists(broker_url, made[-1])
            await getattr(delivery, answer)()
    async with RabbitTransport(broker_url, names=names) as idle:
        await idle.wait_connected()
    assert [await exists(broker_url, queue) for queue in made] == [False, True, False]
    async with raw(broker_url) as channel:
        await channel.queue_delete(made[1])


async def test_a_held_queue_that_is_deleted_comes_back_with_the_next_renewals(
    broker_url: str, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = names.held("deleted")
    monkeypatch.setattr(Names, "held", lambda _, __: made)
    queue = names.tasks("survivor")
    inbox = Inbox[Delivery]()
    async with RabbitTransport(
        broker_url, names=names, watchdog=timedelta(milliseconds=100)
    ) as transport:
        await transport.consume([queue], inbox, prefetch=2)
        await transport.send(queue, numbered(1))
        await transport.send(queue, numbered(2))
        lost, young = await inbox.take(2)
        await lost.renew()
        async with raw(broker_url) as channel:
            await channel.queue_delete(made)
        await renewed(young)
        await young.ack()
        await lost.ack()  # its copy is gone with the queue; it was answered, so nothing is missed
        await transport.send(queue, Envelope("step-task", b"end", "end"))
        assert (await inbox.next()).envelope.body == b"end"


@pytest.fixture(scope="module")
def node() -> Iterator[BrokerNode]:
    with BrokerNode() as node:
        yield node


async def test_a_user_that_may_not_hold_messages_is_told_and_keeps_them_as_they_are(
    node: BrokerNode, names: Names, lane: Lane
) -> None:
    user = f"narrow-{lane}"
    allowed = f"^{names.effective_prefix}-(tasks-.*|dead)$|^amq\\.default$"
    await asyncio.to_thread(node.ctl, "add_user", user, "secret")
    await asyncio.to_thread(node.ctl, "set_permissions", "-p", "/", user, allowed, allowed, allowed)
    queue = names.tasks("refused")
    inbox = Inbox[Delivery]()
    url = node.url().replace("guest:guest", f"{user}:secret")
    async with RabbitTransport(url, names=names) as transport:
        await transport.consume([queue], inbox, prefetch=1)
        await transport.send(queue, numbered(1))
        delivery = await inbox.next()
        for _ in range(2):
            with pytest.raises(BrokerRefusedError, match="held"):
                await delivery.renew()
        await delivery.ack()
        await transport.send(queue, numbered(2))
        assert (await inbox.next()).envelope.body == b"2"


async def test_while_the_broker_takes_nothing_renewals_wait_and_answers_do_not(
    node: BrokerNode, names: Names
) -> None:
    mine = Inbox[Delivery]()
    async with RabbitTransport(node.url(), names=names) as transport:
        await transport.consume([names.tasks("alarm")], mine, prefetch=2)
        await transport.send(names.tasks("alarm"), numbered(1))
        await transport.send(names.tasks("alarm"), numbered(2))
        first, second = await mine.take(2)
        await first.renew()
        await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.00001")
        renewing = asyncio.ensure_future(first.renew())
        other = asyncio.ensure_future(second.renew())
        await asyncio.wait([renewing], timeout=1)
        assert not renewing.done()
        await second.ack()
        await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.8")
        await asyncio.gather(renewing, other)
        await first.ack()
        await transport.send(names.tasks("alarm"), Envelope("step-task", b"end", "end"))
        assert (await mine.next()).envelope.body == b"end"


async def test_a_message_whose_headers_leave_no_room_is_not_renewed_and_costs_no_connection(
    broker_url: str, names: Names, states: States
) -> None:
    queue = names.tasks("headers")
    inbox = Inbox[Delivery]()
    wide = Envelope("step-task", b"{}", "m", headers={"much": "x" * 130_500})
    async with RabbitTransport(broker_url, names=names, on_state=states) as transport:
        await transport.consume([queue], inbox, prefetch=1)
        await transport.send(queue, wide)
        delivery = await inbox.next()
        with pytest.raises(HeadersTooLargeError, match="the limit is 128,000"):
            await delivery.renew()
        await delivery.ack()
        await transport.send(queue, numbered(1))
        await (await inbox.next()).renew()
    assert not any(isinstance(state, Disconnected) for state in states.seen)


async def test_a_message_given_back_while_the_connection_was_away_goes_on_when_it_is_back(
    broker_url: str, proxy: Proxy, names: Names, states: States
) -> None:
    queue = names.tasks("given-back-late")
    mine, theirs = Inbox[Delivery](), Inbox[Delivery]()
    async with (
        RabbitTransport(proxy.url, names=names, held_for=LONG, on_state=states) as holder,
        RabbitTransport(broker_url, names=names) as rival,
    ):
        subscription = await holder.consume([queue], mine, prefetch=1)
        await holder.send(queue, numbered(1))
        delivery = await mine.next()
        await delivery.renew()
        await subscription.stop()
        await rival.consume([queue], theirs, prefetch=1)
        await proxy.go_away()
        await states.until(Disconnected)
        await delivery.release()
        await proxy.listen()
        again = await theirs.next()
        assert (again.envelope.body, again.delivery_count) == (b"1", 0)
        await again.ack()


@pytest.mark.parametrize("seed", [1, 11])
async def test_nothing_is_lost_however_connections_break_while_messages_are_renewed(
    broker_url: str, names: Names, seed: int
) -> None:
    queue, count, random = names.tasks("storm"), 80, Random(seed)
    acked: set[bytes] = set()
    all_acked = asyncio.Event()

    async def work(delivery: Delivery) -> None:
        for _ in range(random.randrange(6)):
            await asyncio.sleep(0.2 * random.random())
            with suppress(ConnectionLostError):
                await delivery.renew()
        if random.random() < 0.1:
            await delivery.release()
            return
        await delivery.ack()
        acked.add(delivery.envelope.body)
        if len(acked) == count:
            all_acked.set()

    async with Proxy(broker_url) as one, Proxy(broker_url) as other, asyncio.TaskGroup() as group:

        async def break_connections() -> None:
            while True:
                await asyncio.sleep(0.6 * random.random())
                random.choice([one, other]).cut()

        async with (
            RabbitTransport(broker_url, names=names) as sender,
            RabbitTransport(one.url, names=names, held_for=timedelta(seconds=1)) as first,
            RabbitTransport(other.url, names=names, held_for=timedelta(seconds=1)) as second,
        ):
            await sender.declare([queue])
            for number in range(count):
                await sender.send(queue, numbered(number))
            for holder in (first, second):
                await holder.consume([queue], lambda it: start(group, work(it)), prefetch=20)
            breaking = group.create_task(break_connections())
            await asyncio.wait([breaking], timeout=6)
            breaking.cancel()
            async with asyncio.timeout(60):
                await all_acked.wait()
            while await depth(broker_url, queue):  # noqa: ASYNC110 - what came twice
                await asyncio.sleep(0.1)
    assert await depth(broker_url, names.dead) == 0


def start(group: asyncio.TaskGroup, work: Coroutine[None, None, None]) -> None:
    group.create_task(work)


async def depth(url: str, queue: str) -> int:
    async with raw(url) as channel:
        return (await channel.get_queue(queue)).declaration_result.message_count or 0
