"""How many run at one time."""

import asyncio
from collections import deque
from contextlib import suppress


class Slots:
    """As a semaphore, first come first served, but one that is free costs nothing to ask for."""

    def __init__(self, count: int) -> None:
        self.free = count
        self._waiting = deque[asyncio.Future[None]]()

    def take_now(self) -> None:
        """While some are free."""
        self.free -= 1

    async def take(self) -> None:
        if self.free:
            self.free -= 1
            return
        handed_over = asyncio.get_running_loop().create_future()
        self._waiting.append(handed_over)
        try:
            await handed_over
        except asyncio.CancelledError:
            if handed_over.cancelled():
                with suppress(ValueError):  # whoever left meanwhile has passed it over
                    self._waiting.remove(handed_over)
            else:
                self.leave()  # it came just now
            raise

    def leave(self) -> None:
        while self._waiting:
            first = self._waiting.popleft()
            if not first.done():
                first.set_result(None)
                return
        self.free += 1
