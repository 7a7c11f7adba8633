"""Sending: what is confirmed, and what is refused with which error."""

import asyncio

import pytest

from durable_worker.errors import PayloadTooLargeError, UnroutableError, UnsendableError
from durable_worker.protocol.names import Names
from durable_worker.transports.base import Delivery, Envelope, Transport
from tests.conformance.transports.conftest import SMALL_LIMIT
from tests.conformance.transports.inbox import Inbox


async def test_a_message_to_a_queue_that_nobody_declared_is_unroutable(
    transport: Transport, names: Names
) -> None:
    queue = names.tasks("nobody")
    with pytest.raises(UnroutableError, match="does not exist") as caught:
        await transport.send(queue, Envelope("step-task", b"{}", message_id="m"))
    assert caught.value.queue == queue
    await transport.declare([queue])
    await transport.send(queue, Envelope("step-task", b"{}", message_id="m"))


async def test_of_many_sends_at_once_only_the_unroutable_ones_fail(
    transport: Transport, names: Names
) -> None:
    await transport.declare([names.results])
    targets = [names.results if number % 3 else names.decisions for number in range(30)]
    # One message id for all: an answer must still reach the send that it belongs to.
    outcomes = await asyncio.gather(
        *(transport.send(target, Envelope("t", b"{}", message_id="same")) for target in targets),
        return_exceptions=True,
    )
    assert [isinstance(outcome, UnroutableError) for outcome in outcomes] == [
        target == names.decisions for target in targets
    ]


async def test_a_message_at_the_limit_goes_and_one_above_it_does_not(
    transport: Transport, names: Names
) -> None:
    await transport.declare([names.results])
    await transport.send(names.results, Envelope("step-result", b"x" * SMALL_LIMIT))
    with pytest.raises(PayloadTooLargeError, match="1,001 bytes") as caught:
        await transport.send(names.results, Envelope("step-result", b"x" * (SMALL_LIMIT + 1)))
    error = caught.value
    assert (error.size, error.limit, error.queue) == (SMALL_LIMIT + 1, SMALL_LIMIT, names.results)
    with pytest.raises(PayloadTooLargeError):
        await transport.broadcast(names.control, Envelope("control", b"x" * (SMALL_LIMIT + 1)))


LONG = "ü" * 128
"""256 bytes, one more than AMQP can write as a name, an id or a type."""


@pytest.mark.parametrize(
    ("queue", "envelope", "field"),
    [
        (LONG, Envelope("step-task", b"{}"), "queue or exchange name"),
        ("", Envelope("step-task", b"{}", message_id=LONG), "message id"),
        ("", Envelope(LONG, b"{}"), "message type"),
    ],
    ids=["queue", "message id", "type"],
)
async def test_a_message_with_a_property_too_long_is_unsendable_and_harms_no_other(
    transport: Transport, names: Names, queue: str, envelope: Envelope, field: str
) -> None:
    await transport.declare([names.results])
    with pytest.raises(UnsendableError, match="has 256 bytes, the limit is 255") as caught:
        await transport.send(queue or names.results, envelope)
    assert (caught.value.field, caught.value.size, caught.value.limit) == (field, 256, 255)
    with pytest.raises(UnsendableError, match=field):
        await transport.broadcast(queue or names.control, envelope)
    longest = Envelope("step-task", b"{}", message_id="x" * 255)
    await transport.send(names.results, longest)
    inbox = Inbox[Delivery]()
    await transport.consume([names.results], inbox, prefetch=1)
    assert (await inbox.next()).envelope == longest


async def test_names_and_topics_that_are_too_long_are_unsendable(
    transport: Transport, names: Names
) -> None:
    with pytest.raises(UnsendableError, match="topic"):
        await transport.broadcast(names.tenant_events, Envelope("t", b"{}"), topic=LONG)
    for refused in (
        transport.declare([names.results, LONG]),
        transport.consume([LONG], Inbox[Delivery](), prefetch=1),
        transport.listen(LONG, Inbox[Envelope]()),
    ):
        with pytest.raises(UnsendableError, match="queue or exchange name"):
            await refused


async def test_a_thousand_sends_at_once_are_all_confirmed_and_all_arrive(
    transport: Transport, names: Names
) -> None:
    queue = names.results
    await transport.declare([queue])
    sends = (
        transport.send(queue, Envelope("step-result", b"%d" % number, message_id=f"m{number}"))
        for number in range(1_000)
    )
    async with asyncio.timeout(30):
        await asyncio.gather(*sends)
    inbox = Inbox[Delivery]()
    await transport.consume([queue], inbox, prefetch=2_000)
    arrived = await inbox.take(1_000)
    assert sorted(int(each.envelope.body) for each in arrived) == [*range(1_000)]


async def test_declaring_again_is_harmless(transport: Transport, names: Names) -> None:
    await transport.declare([names.results, names.decisions, names.results])
    await transport.declare([names.results, names.dead])
    await transport.send(names.results, Envelope("step-result", b"{}"))


async def test_an_entered_transport_is_connected_sooner_or_later(transport: Transport) -> None:
    async with asyncio.timeout(10):
        await transport.wait_connected()
