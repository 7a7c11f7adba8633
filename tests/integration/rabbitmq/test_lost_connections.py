"""What survives a lost connection, and what comes back after it."""

import asyncio

import pytest

from durable_worker.errors import ConnectionLostError
from durable_worker.protocol.names import Names
from durable_worker.transports.base import Delivery, Envelope
from durable_worker.transports.rabbitmq import (
    Connected,
    ConnectFailed,
    Disconnected,
    RabbitTransport,
)
from tests.conformance.transports.inbox import Inbox
from tests.integration.rabbitmq.conftest import States
from tests.integration.rabbitmq.proxy import Proxy

pytestmark = pytest.mark.broker


async def test_work_survives_a_cut_and_its_late_ack_is_harmless(
    proxy: Proxy, names: Names, states: States
) -> None:
    queue = names.tasks("survivor")
    inbox = Inbox[Delivery]()
    may_finish = asyncio.Event()
    async with RabbitTransport(proxy.url, names=names, on_state=states) as transport:
        await transport.consume([queue], inbox, prefetch=1)
        await transport.send(queue, Envelope("step-task", b"{}", message_id="m"))
        first = await inbox.next()

        async def work() -> str:
            await may_finish.wait()
            await first.ack()
            return "finished"

        working = asyncio.ensure_future(work())
        proxy.cut()
        second = await inbox.next()
        may_finish.set()
        assert await working == "finished"
        assert (second.envelope, second.delivery_count) == (first.envelope, 1)
        await second.ack()
        # The connection has taken no harm from the ack of another generation.
        await transport.send(queue, Envelope("step-task", b"next", message_id="n"))
        assert (await inbox.next()).envelope.body == b"next"
    assert (await states.until(Connected, count=2)).generation == 2
    assert len([state for state in states.seen if isinstance(state, Disconnected)]) == 1


async def test_consumers_and_listeners_come_back_after_every_cut(
    proxy: Proxy, names: Names, states: States
) -> None:
    tasks, heard = Inbox[Delivery](), Inbox[Envelope]()
    async with RabbitTransport(proxy.url, names=names, on_state=states) as transport:
        await transport.consume([names.tasks("a"), names.tasks("b")], tasks, prefetch=5)
        await transport.listen(names.control, heard)
        for cuts in range(1, 4):
            proxy.cut()
            await states.until(Disconnected, count=cuts)
            await transport.wait_connected()
            await transport.send(names.tasks("b"), Envelope("step-task", b"{}", message_id="m"))
            await (await tasks.next()).ack()
            # A listener has ears again a moment after the connection: repeat until it hears.
            async with asyncio.timeout(10):
                while not len(heard):
                    await transport.broadcast(names.control, Envelope("control", b"{}"))
                    await asyncio.sleep(0.01)
            heard.drain()


async def test_sends_that_wait_while_the_broker_is_away_go_out_afterwards(
    proxy: Proxy, names: Names, states: States
) -> None:
    inbox = Inbox[Delivery]()
    async with RabbitTransport(proxy.url, names=names, on_state=states) as transport:
        await transport.consume([names.results], inbox, prefetch=50)
        await transport.wait_connected()
        await proxy.go_away()
        await states.until(ConnectFailed)
        sends = [
            asyncio.ensure_future(
                transport.send(names.results, Envelope("step-result", b"{}", message_id=str(n)))
            )
            for n in range(20)
        ]
        await states.until(ConnectFailed, count=2)
        assert not any(send.done() for send in sends)
        await proxy.listen()
        await asyncio.gather(*sends)
        arrived = {each.envelope.message_id for each in await inbox.take(20)}
        assert arrived == {str(n) for n in range(20)}


async def test_a_send_whose_confirm_was_lost_says_so(
    proxy: Proxy, names: Names, states: States
) -> None:
    async with RabbitTransport(proxy.url, names=names, on_state=states) as transport:
        await transport.declare([names.results])
        await transport.wait_connected()
        await transport.send(names.results, Envelope("step-result", b"1", message_id="1"))
        proxy.freeze()
        unsure = [
            asyncio.ensure_future(
                transport.send(names.results, Envelope("step-result", b"2", message_id=str(n)))
            )
            for n in range(40)
        ]
        await asyncio.wait(unsure, timeout=0.3)
        assert not any(send.done() for send in unsure)
        proxy.cut()
        proxy.thaw()
        outcomes = await asyncio.gather(*unsure, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {ConnectionLostError}
        await transport.send(names.results, Envelope("step-result", b"3", message_id="3"))


async def test_a_broker_that_comes_late_is_found(
    broker_url: str, names: Names, states: States
) -> None:
    async with (
        Proxy(broker_url, is_listening=False) as proxy,
        RabbitTransport(proxy.url, names=names, on_state=states) as transport,
    ):
        inbox = Inbox[Delivery]()
        consuming = asyncio.ensure_future(transport.consume([names.results], inbox, prefetch=1))
        sending = asyncio.ensure_future(
            transport.send(names.results, Envelope("step-result", b"{}", message_id="m"))
        )
        failure = await states.until(ConnectFailed, count=2)
        assert failure.attempt == 2
        assert "cannot connect" in failure.reason
        assert not consuming.done()
        await proxy.listen()
        await transport.wait_connected()
        await consuming
        # The send may have overtaken the declaration of its queue; then it says so.
        await asyncio.gather(sending, return_exceptions=True)
        await transport.send(names.results, Envelope("step-result", b"{}", message_id="m2"))
        await inbox.next()


async def test_leaving_while_the_broker_is_away_is_quick_and_quiet(
    proxy: Proxy, names: Names, states: States
) -> None:
    inbox = Inbox[Delivery]()
    async with RabbitTransport(proxy.url, names=names, on_state=states) as transport:
        subscription = await transport.consume([names.results], inbox, prefetch=1)
        await transport.send(names.results, Envelope("step-result", b"{}", message_id="m"))
        held = await inbox.next()
        await proxy.go_away()
        await states.until(ConnectFailed)
        waiting = asyncio.ensure_future(
            transport.send(names.results, Envelope("step-result", b"{}", message_id="n"))
        )
        await held.ack()
        await subscription.stop()
    with pytest.raises(ConnectionLostError, match="closed"):
        await waiting


async def test_leaving_a_broker_that_has_fallen_silent_takes_bounded_time(
    proxy: Proxy, names: Names
) -> None:
    inbox = Inbox[Delivery]()
    async with asyncio.timeout(15):
        async with RabbitTransport(proxy.url, names=names) as transport:
            await transport.consume([names.results], inbox, prefetch=1)
            await transport.send(names.results, Envelope("step-result", b"{}", message_id="m"))
            await inbox.next()
            proxy.freeze()


async def test_a_new_queue_that_many_ask_for_at_once_costs_nobody_the_connection(
    proxy: Proxy, names: Names, states: States
) -> None:
    async with RabbitTransport(proxy.url, names=names, on_state=states) as transport:
        await transport.declare([names.dead])
        for number in range(10):
            queue = names.tasks(f"new{number}")
            async with asyncio.TaskGroup() as group:
                group.create_task(transport.declare([queue]))
                for _ in range(3):
                    group.create_task(transport.consume([queue], Inbox[Delivery](), prefetch=1))
    assert not [state for state in states.seen if isinstance(state, Disconnected)]


async def test_a_cancelled_send_and_a_cancelled_consume_leave_the_transport_working(
    proxy: Proxy, names: Names, states: States
) -> None:
    async with RabbitTransport(proxy.url, names=names, on_state=states) as transport:
        await transport.declare([names.results])
        for _ in range(5):
            send = asyncio.ensure_future(
                transport.send(names.results, Envelope("step-result", b"x", message_id="m"))
            )
            consume = asyncio.ensure_future(
                transport.consume([names.decisions], Inbox[Delivery](), prefetch=1)
            )
            await asyncio.wait({send, consume}, timeout=0.001)
            send.cancel()
            consume.cancel()
            await asyncio.wait({send, consume})
        inbox = Inbox[Delivery]()
        await transport.send(names.results, Envelope("step-result", b"last", message_id="last"))
        await transport.consume([names.results], inbox, prefetch=100)
        while (await inbox.next()).envelope.message_id != "last":
            pass
    assert not [state for state in states.seen if isinstance(state, Disconnected)]
