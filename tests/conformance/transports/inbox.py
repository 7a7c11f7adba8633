"""A handler that keeps what it gets until a test asks for it."""

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")

PATIENCE = 10.0


class Inbox(Generic[T]):
    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._arrived = asyncio.Event()

    def __call__(self, item: T) -> None:
        self._items.append(item)
        self._arrived.set()

    def __len__(self) -> int:
        return len(self._items)

    async def next(self, *, within: float = PATIENCE) -> T:
        async with asyncio.timeout(within):
            while not self._items:
                self._arrived.clear()
                await self._arrived.wait()
        return self._items.popleft()

    async def take(self, count: int, *, within: float = PATIENCE) -> list[T]:
        """`within` is how long each of them may take."""
        return [await self.next(within=within) for _ in range(count)]

    def drain(self) -> list[T]:
        """What is here already."""
        items = [*self._items]
        self._items.clear()
        return items
