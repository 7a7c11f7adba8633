"""Wakes runs whose timers and retries are due."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from durable_worker.clock import Clock
from durable_worker.errors import StoreError
from durable_worker.operator.lease import Tenure
from durable_worker.operator.log import log
from durable_worker.stores.base import SharedStore
from durable_worker.stores.inputs import AnyInput, TimerDue
from durable_worker.stores.records import DueTimer

LONGEST_SLEEP_SECONDS = 1.0
"""The system's clock may be set while we sleep; so long may that go unnoticed."""

BATCH = 500

GRACE_MS = 300
"""So late a timer of another operator is fired by whoever sees it."""

SHARED_SLEEP_SECONDS = 0.4
"""So long the timers of another operator, which has died, may go unnoticed."""


class TimerSource(Protocol):
    """Where timers are read."""

    async def due_timers(self, now: int, *, limit: int) -> list[DueTimer]: ...
    async def next_timer(self) -> int | None: ...


class SharedTimers:
    """The timers of one operator among several, and those of others that are late."""

    def __init__(self, store: SharedStore, tenure: Tenure) -> None:
        self._store = store
        self._tenure = tenure

    async def due_timers(self, now: int, *, limit: int) -> list[DueTimer]:
        token = self._tenure.token
        return await self._store.due_timers_for(token, now, grace=GRACE_MS, limit=limit)

    async def next_timer(self) -> int | None:
        return await self._store.next_timer_for(self._tenure.token, grace=GRACE_MS)


class Timers:
    """`run` fires timers until it is cancelled. `apply` returns when an input is committed."""

    def __init__(
        self,
        store: TimerSource,
        *,
        clock: Clock,
        apply: Callable[[AnyInput], Awaitable[None]],
        looks_again: bool = False,
    ) -> None:
        """`looks_again`: timers may come to be that nobody tells `arm` of."""
        self._store = store
        self._looks_again = looks_again
        self._clock = clock
        self._apply = apply
        self._next: int | None = None
        self._rearmed = asyncio.Event()

    def arm(self, fires_at: int) -> None:
        """A timer with this deadline (epoch ms) has been committed."""
        if self._next is None or fires_at < self._next:
            self._next = fires_at
            self._rearmed.set()

    async def run(self) -> None:
        while True:
            try:
                await self._fire()
            except StoreError as error:
                log.error("timers_unreadable", error=str(error))
                await self._clock.sleep(LONGEST_SLEEP_SECONDS)
                continue
            await self._rest()

    async def _fire(self) -> None:
        while due := await self._store.due_timers(self._clock.now(), limit=BATCH):
            inputs = [TimerDue(run_id=each.run_id, seq=each.seq) for each in due]
            await asyncio.gather(*(self._apply(each) for each in inputs))
        # What is armed from here on is either seen by this query or reported to `arm`.
        self._next = None
        self._rearmed.clear()
        earliest = await self._store.next_timer()
        if earliest is not None and (self._next is None or earliest < self._next):
            self._next = earliest

    async def _rest(self) -> None:
        while self._next is None or self._next > self._clock.now():
            if self._looks_again:
                left = SHARED_SLEEP_SECONDS
                if self._next is not None:
                    left = min(left, (self._next - self._clock.now()) / 1000)
                await self._sleep_or_rearmed(max(left, 0.0))
                self._rearmed.clear()
                return
            if self._next is None:
                await self._rearmed.wait()
            else:
                left = (self._next - self._clock.now()) / 1000
                await self._sleep_or_rearmed(min(max(left, 0.0), LONGEST_SLEEP_SECONDS))
            self._rearmed.clear()

    async def _sleep_or_rearmed(self, seconds: float) -> None:
        async with asyncio.TaskGroup() as group:
            sleeping = group.create_task(self._clock.sleep(seconds))
            rearmed = group.create_task(self._rearmed.wait())
            await asyncio.wait({sleeping, rearmed}, return_when=asyncio.FIRST_COMPLETED)
            sleeping.cancel()
            rearmed.cancel()
