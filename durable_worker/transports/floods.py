"""Many messages of one kind of trouble: all are treated, few are spoken of."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

TOLD_AT_ONCE: Final = 10
"""So many are told one by one, in each window and for each queue."""

WINDOW_SECONDS: Final = 60.0


class Floods:
    """`tell` writes one line; `sum_up` gets the queue and how many were left out."""

    def __init__(
        self, tell: Callable[..., object], sum_up: Callable[[str, int], object], /
    ) -> None:
        self._tell = tell
        self._sum_up = sum_up
        self._counts: dict[str, int] = {}
        self._windows: dict[str, asyncio.TimerHandle] = {}

    def note(self, queue: str, **fields: Any) -> None:
        """One more on this queue."""
        if queue not in self._windows:
            loop = asyncio.get_running_loop()
            self._windows[queue] = loop.call_later(WINDOW_SECONDS, self._end, queue)
        count = self._counts[queue] = self._counts.get(queue, 0) + 1
        if count <= TOLD_AT_ONCE:
            self._tell(queue=queue, **fields)

    def close(self) -> None:
        """Say what has not been said yet."""
        for queue in list(self._windows):
            self._end(queue)

    def _end(self, queue: str) -> None:
        self._windows.pop(queue).cancel()
        left_out = self._counts.pop(queue) - TOLD_AT_ONCE
        if left_out > 0:
            self._sum_up(queue, left_out)
