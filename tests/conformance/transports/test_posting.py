"""Posting: sending without waiting, where a transport can."""

import asyncio

import pytest

from durable_worker.errors import (
    PayloadTooLargeError,
    TransportError,
    UnroutableError,
    UnsendableError,
)
from durable_worker.protocol.names import Names
from durable_worker.transports.base import Delivery, Envelope, PromptTransport, Transport
from tests.conformance.transports.conftest import SMALL_LIMIT, NewTransport
from tests.conformance.transports.inbox import Inbox

pytestmark = pytest.mark.parametrize(
    "new_transport",
    [
        "memory",
        pytest.param("rabbitmq", marks=pytest.mark.broker),
        pytest.param("rabbitmq over aio-pika", marks=pytest.mark.broker),
    ],
    indirect=True,
)
"""Not those that sign: how long a key takes to come is not theirs to say."""


class Told:
    """Gathers what posts come to, with their numbers."""

    def __init__(self) -> None:
        self.outcomes: dict[int, TransportError | None] = {}
        self._news = asyncio.Event()

    def about(self, number: int, error: TransportError | None) -> None:
        assert number not in self.outcomes
        self.outcomes[number] = error
        self._news.set()

    async def all_of(self, count: int) -> dict[int, TransportError | None]:
        async with asyncio.timeout(20):
            while len(self.outcomes) < count:
                self._news.clear()
                await self._news.wait()
        return self.outcomes


@pytest.fixture
async def prompt(transport: Transport) -> PromptTransport:
    """A transport on which something was sent, so that it can post at once."""
    await transport.wait_connected()
    if not isinstance(transport, PromptTransport):
        pytest.fail("it cannot post")
    return transport


def envelope(number: int) -> Envelope:
    return Envelope("step-result", b"%d" % number, message_id=f"m{number}")


async def test_what_is_posted_arrives_and_is_told_of_later_and_once(
    transport: Transport, prompt: PromptTransport, names: Names
) -> None:
    queue, told = names.results, Told()
    await transport.declare([queue])
    await transport.send(queue, envelope(0))
    for number in range(1, 500):
        assert prompt.post(queue, envelope(number), lambda e, n=number: told.about(n, e))
    assert told.outcomes == {}
    assert await told.all_of(499) == dict.fromkeys(range(1, 500))
    inbox = Inbox[Delivery]()
    await transport.consume([queue], inbox, prefetch=1_000)
    arrived = [each.envelope.body for each in await inbox.take(500)]
    assert sorted(int(each) for each in arrived) == [*range(500)]


async def test_of_many_posts_only_the_unroutable_ones_are_told_so(
    transport: Transport, prompt: PromptTransport, names: Names
) -> None:
    told = Told()
    await transport.declare([names.results])
    await transport.send(names.results, envelope(0))
    same = Envelope("t", b"{}", message_id="same")
    for number in range(30):
        target = names.results if number % 3 else names.decisions
        assert prompt.post(target, same, lambda e, n=number: told.about(n, e))
    outcomes = await told.all_of(30)
    assert {number for number, error in outcomes.items() if error is not None} == {*range(0, 30, 3)}
    assert all(isinstance(outcomes[number], UnroutableError) for number in range(0, 30, 3))


async def test_what_no_broker_could_take_is_raised_and_told_to_nobody(
    transport: Transport, prompt: PromptTransport, names: Names
) -> None:
    told = Told()
    await transport.declare([names.results])
    await transport.send(names.results, envelope(0))
    with pytest.raises(PayloadTooLargeError):
        prompt.post(
            names.results, Envelope("t", b"x" * (SMALL_LIMIT + 1)), lambda e: told.about(0, e)
        )
    with pytest.raises(UnsendableError, match="message id"):
        prompt.post(
            names.results, Envelope("t", b"{}", message_id="x" * 256), lambda e: told.about(0, e)
        )
    assert prompt.post(names.results, envelope(1), lambda e: told.about(1, e))
    assert await told.all_of(1) == {1: None}


async def test_a_transport_that_was_left_posts_nothing(
    new_transport: NewTransport, names: Names
) -> None:
    told = Told()
    async with new_transport() as transport:
        await transport.wait_connected()
        if not isinstance(transport, PromptTransport):
            pytest.fail("it cannot post")
        await transport.declare([names.results])
        await transport.send(names.results, envelope(0))
    assert not transport.post(names.results, envelope(1), lambda e: told.about(1, e))
    await asyncio.sleep(0)
    assert told.outcomes == {}
