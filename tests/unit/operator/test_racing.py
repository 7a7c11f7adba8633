"""Ending what runs beside."""

import asyncio

import pytest

from durable_worker.operator.racing import ended

pytestmark = pytest.mark.anyio


async def test_a_task_whose_library_swallows_a_cancellation_is_cancelled_once_more() -> None:
    swallowed = 0

    async def library() -> None:
        nonlocal swallowed
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            if swallowed == 2:
                raise
            swallowed += 1

    async def loop() -> None:
        while True:
            await library()

    async def failing() -> None:
        raise OSError

    tasks = [asyncio.ensure_future(loop()), asyncio.ensure_future(failing())]
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await ended(tasks, patience=0.02)
    assert swallowed == 2
    assert tasks[0].cancelled()
    assert isinstance(tasks[1].exception(), OSError)


async def test_nothing_ends_at_once() -> None:
    await ended([])
