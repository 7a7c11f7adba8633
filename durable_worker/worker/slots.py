"""How many run at one time."""

import asyncio
from collections import deque


class Slots:
    """As a semaphore, first come first served, but one that is free costs nothing to ask for."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting = deque[asyncio.Future[None]]()

    @property
    def are_taken(self) -> bool:
        return not self._free

    def take_now(self) -> None:
        """While they are not all taken."""
        self._free -= 1

    async def take(self) -> None:
        if self._free:
            self._free -= 1
            return
        handed_over = asyncio.get_running_loop().create_future()
        self._waiting.append(handed_over)
        try:
            await handed_over
        except asyncio.CancelledError:
            if handed_over.cancelled():
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
        self._free += 1
