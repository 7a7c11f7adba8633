"""The broker inside one process, where it differs from a queue that outlives its consumers."""

import asyncio

from durable_worker.protocol.names import Names
from durable_worker.transports.base import Delivery, Envelope
from durable_worker.transports.memory import MemoryTransport

NAMES = Names()


async def test_what_one_worker_never_answers_is_a_dead_letter_once_the_transport_has_closed() -> (
    None
):
    own, dead = asyncio.Queue[Delivery](), asyncio.Queue[Delivery]()
    transport, queue, turn = MemoryTransport(names=NAMES), NAMES.turns("w"), Envelope(None, b"{}")
    async with transport:
        subscription = await transport.consume([queue], own.put_nowait, prefetch=10)
        for _ in range(2):
            await transport.send(queue, turn)
        answered, unanswered = await own.get(), await own.get()
        await subscription.stop()
        await answered.ack()
    async with transport:
        await unanswered.ack()  # too late
        await transport.consume([NAMES.dead], dead.put_nowait, prefetch=10)
        async with asyncio.timeout(5):
            assert (await dead.get()).envelope == turn
        assert transport.depth(NAMES.dead) == 1
