"""A slot that is given back goes to whoever still waits for it."""

import asyncio

import pytest

from durable_worker.worker.slots import Slots

pytestmark = pytest.mark.anyio


async def test_a_slot_that_comes_free_beside_a_cancellation_is_not_lost() -> None:
    slots = Slots(1)
    await slots.take()
    first, second = (asyncio.ensure_future(slots.take()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    slots.leave()
    await second
    with pytest.raises(asyncio.CancelledError):
        await first
    slots.leave()
    assert slots.free == 1
