"""Waiting for what happens soon, never for an amount of time."""

import asyncio
from collections.abc import Awaitable, Callable


async def eventually(
    is_so: Callable[[], bool] | Callable[[], Awaitable[bool]], *, within: float = 10.0
) -> None:
    """Return once the condition holds. Raises `TimeoutError`."""
    async with asyncio.timeout(within):
        while True:
            outcome = is_so()
            if outcome if isinstance(outcome, bool) else await outcome:
                return
            await asyncio.sleep(0.005)
