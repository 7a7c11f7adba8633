"""Waiting for one thing or the other."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar, cast

T = TypeVar("T")


async def unless_stopped(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> tuple[T] | None:
    """The outcome of `work`; None if `stop` was set first, and `work` was cancelled."""
    async with asyncio.TaskGroup() as group:
        working = group.create_task(work)
        stopping = group.create_task(stop.wait())
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not working.done():
            working.cancel()
    return None if working.cancelled() else (working.result(),)


async def ended(tasks: Iterable[asyncio.Task[Any]], *, patience: float = 5.0) -> None:
    """Cancel them until all have ended. Once may not be enough: what comes together with an answer
    is lost in a library that waits by `asyncio.wait_for` on Python 3.11, and a loop goes on."""
    pending = set(tasks)
    while pending:
        for each in pending:
            each.cancel()
        _, pending = await asyncio.wait(pending, timeout=patience)


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that made the others happen, as far as their order tells."""
    first = group.exceptions[0]
    if isinstance(first, BaseExceptionGroup):
        return first_error(cast("BaseExceptionGroup[BaseException]", first))
    return first
