"""Broadcasts: everybody who listens now, and only what they listen to."""

from datetime import timedelta

import pytest

from durable_worker.protocol.names import Names
from durable_worker.transports.base import Envelope, Transport
from durable_worker.transports.topics import matches_topic
from tests.conformance.transports.inbox import Inbox


def saying(text: str) -> Envelope:
    return Envelope("control", text.encode(), message_id=text)


async def test_a_broadcast_reaches_every_current_listener_and_no_later_one(
    transport: Transport, names: Names
) -> None:
    await transport.wait_connected()
    await transport.broadcast(names.control, saying("too early"))
    one, two = Inbox[Envelope](), Inbox[Envelope]()
    await transport.listen(names.control, one)
    await transport.listen(names.control, two)
    await transport.broadcast(names.control, saying("now"))
    assert [await one.next(), await two.next()] == [saying("now"), saying("now")]


async def test_a_listener_hears_its_own_exchange_only(transport: Transport, names: Names) -> None:
    await transport.wait_connected()
    control, beats = Inbox[Envelope](), Inbox[Envelope]()
    await transport.listen(names.control, control)
    await transport.listen(names.heartbeat, beats)
    await transport.broadcast(names.heartbeat, saying("beat"))
    await transport.broadcast(names.control, saying("cancel"))
    assert [await control.next(), await beats.next()] == [saying("cancel"), saying("beat")]
    assert len(control) == len(beats) == 0


async def test_a_stopped_listener_hears_nothing_more(transport: Transport, names: Names) -> None:
    await transport.wait_connected()
    stopped, witness = Inbox[Envelope](), Inbox[Envelope]()
    subscription = await transport.listen(names.control, stopped)
    await transport.listen(names.control, witness)
    await subscription.stop()
    await transport.broadcast(names.control, saying("hello"))
    assert await witness.next() == saying("hello")
    assert len(stopped) == 0


async def test_tenant_events_are_selected_by_topic(transport: Transport, names: Names) -> None:
    await transport.wait_connected()
    mine, everything = Inbox[Envelope](), Inbox[Envelope]()
    await transport.listen(names.tenant_events, mine, topic="acme")
    await transport.listen(names.tenant_events, everything)
    await transport.broadcast(names.tenant_events, saying("theirs"), topic="umbrella")
    await transport.broadcast(names.tenant_events, saying("ours"), topic="acme")
    assert await everything.take(2) == [saying("theirs"), saying("ours")]
    assert await mine.next() == saying("ours")
    assert len(mine) == 0


async def test_a_broadcast_that_nobody_hears_is_no_error(
    transport: Transport, names: Names
) -> None:
    await transport.wait_connected()
    await transport.broadcast(names.run_reply, saying("anybody?"))


async def test_an_expiring_broadcast_tells_when_it_expires(
    transport: Transport, names: Names
) -> None:
    await transport.wait_connected()
    inbox = Inbox[Envelope]()
    await transport.listen(names.workers, inbox)
    beat = Envelope("worker-beat", b"{}", message_id="b", expires=timedelta(seconds=35))
    await transport.broadcast(names.workers, beat)
    assert await inbox.next() == beat


@pytest.mark.parametrize(
    ("pattern", "topic", "is_selected"),
    [
        ("#", "", True),
        ("#", "a.b", True),
        ("a.b", "a.b", True),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("a.#", "a", True),
        ("a.#.z", "a.b.c.z", True),
        ("a.#.z", "a.b.c", False),
        ("*", "acme", True),
        ("acme", "umbrella", False),
    ],
)
def test_topic_patterns_follow_the_rules_of_amqp(
    pattern: str, topic: str, is_selected: bool
) -> None:
    assert matches_topic(pattern, topic) is is_selected
