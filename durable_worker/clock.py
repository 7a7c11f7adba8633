"""Time and chance. Whatever runs is given them, so that a simulation can give its own."""

import asyncio
import random
import time
from typing import Protocol
from uuid import UUID, uuid4


def ordered_id(chance: UUID, *, now: int) -> UUID:
    """`chance` as a UUID of version 7: those drawn later (`now`, epoch ms) sort behind.

    Rows of runs that began together then lie together in an index.
    """
    low = chance.int & ((1 << 62) - 1)
    high = (now & ((1 << 48) - 1)) << 16 | 0x7000 | (chance.int >> 116 & 0xFFF)
    return UUID(int=high << 64 | 0b10 << 62 | low)


class Clock(Protocol):
    def now(self) -> int:
        """Epoch milliseconds. May jump when somebody sets the system's clock."""
        ...

    def monotonic(self) -> float:
        """Seconds that never jump."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    def now(self) -> int:
        return time.time_ns() // 1_000_000

    monotonic = staticmethod(time.monotonic)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Chance(Protocol):
    def new_id(self) -> UUID:
        """One that nobody has drawn before."""
        ...

    def fraction(self) -> float:
        """At least 0, below 1."""
        ...


class SystemChance:
    def new_id(self) -> UUID:
        return uuid4()

    def fraction(self) -> float:
        return random.random()
