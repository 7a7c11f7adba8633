"""A signed task that its worker has moved to a queue of its own is as good as the first."""

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

import pytest

from durable_worker.protocol.base import UNVERIFIED_HEADER
from durable_worker.protocol.keys import Keyring
from durable_worker.protocol.names import Names
from durable_worker.transports.base import HELD_HEADER, Delivery, Envelope
from durable_worker.transports.rabbitmq import RabbitTransport
from durable_worker.transports.signing import SigningTransport
from tests.conformance.transports.inbox import Inbox

pytestmark = [pytest.mark.broker, pytest.mark.anyio]

RING = Keyring({"k1": bytes(range(32))})


def signing(url: str, names: Names) -> SigningTransport:
    rabbit = RabbitTransport(url, names=names, held_for=timedelta(seconds=1))
    return SigningTransport(rabbit, RING, names=names)


async def test_it_comes_to_another_worker_and_to_the_dead_queue_with_its_signature(
    broker_url: str, names: Names
) -> None:
    queue = names.tasks("pay")
    sent = Envelope("step-task", b'{"a": 1.0}', "r:0:1")
    async with signing(broker_url, names) as other:
        await other.declare([queue])
        await other.send(queue, sent)
        async with signing(broker_url, names) as holder:
            held = Inbox[Delivery]()
            await holder.consume([queue], held, prefetch=1)
            delivery = await held.next()
            await delivery.renew()
            await delivery.renew()
        # Its holder is gone without an answer; whoever gets it now never answers either.
        copies, letters = Inbox[Envelope](), Inbox[Delivery]()

        async def give_back(delivery: Delivery) -> None:
            copies(delivery.envelope)
            await delivery.release()

        await other.consume([names.dead], letters, prefetch=1)
        async with asyncio.TaskGroup() as group:
            subscription = await other.consume(
                [queue], lambda each: _start(group, give_back(each)), prefetch=1
            )
            letter = (await letters.next(within=30)).envelope
            await subscription.stop()
        copy = await copies.next()
        assert copy.body == sent.body
        assert HELD_HEADER in copy.headers
        assert (letter.body, letter.message_id) == (sent.body, "r:0:1")
        assert UNVERIFIED_HEADER not in letter.headers
        assert other.refused == {}


def _start(group: asyncio.TaskGroup, work: Coroutine[Any, Any, None]) -> None:
    group.create_task(work)
