"""Sending: what is confirmed, and what is refused with which error."""

import asyncio

import pytest

from durable_worker.errors import PayloadTooLargeError, UnroutableError
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
