"""Keeps a message that may kill its process apart from its neighbours.

A crash charges a delivery to every message that the process held, so a count alone does not tell
the one that caused it. From the second one on a message is a suspect: suspects run one at a time,
in an order that changes with each process, and nothing new starts beside one in its first seconds.
So a neighbour of a message that kills is soon run without it, and comes to its end.
"""

import asyncio
from datetime import timedelta

import anyio
from msgspec import Struct

from durable_worker.clock import Chance
from durable_worker.transports.base import RESENT_HEADER, Delivery

SUSPICIOUS_DELIVERIES = 2
"""From this count of earlier deliveries on a message runs apart from other suspects."""

SHUFFLE = timedelta(milliseconds=500)
"""Over this time suspects that come together are spread, so that their order is not the queue's."""

PATIENCE = timedelta(seconds=10)
"""How long a suspect waits for what runs already, so as not to take it along."""

PROBATION = timedelta(seconds=10)
"""How long nothing new starts beside a suspect; one that lives longer does not stop its worker."""

_MOST_DIGITS = 9


def is_suspect(delivery: Delivery) -> bool:
    """Whether its process has died over it more than once, or it was given up more than once."""
    if delivery.delivery_count >= SUSPICIOUS_DELIVERIES:
        return True
    resent = delivery.envelope.headers.get(RESENT_HEADER)
    if resent is None or not resent.isdecimal() or len(resent) >= _MOST_DIGITS:
        return False
    return int(resent) >= SUSPICIOUS_DELIVERIES


class Quarantine:
    """`chance` decides the order of suspects."""

    def __init__(self, chance: Chance) -> None:
        self._chance = chance
        self._alone = anyio.Lock()
        self.is_closed = False
        """Whether what is no suspect has to wait."""
        self._opened = asyncio.Event()
        self._quiet = asyncio.Event()
        self._running = 0
        self._probation: asyncio.TimerHandle | None = None

    def admission(self, delivery: Delivery) -> "Quarantine | _Alone":
        """To hold while the message is run."""
        return _Alone(self) if is_suspect(delivery) else self

    async def __aenter__(self) -> None:
        await self.enter()

    async def __aexit__(self, *_: object) -> None:
        self.leave()

    async def enter(self) -> None:
        while self.is_closed:
            await self._opened.wait()
        self._running += 1

    def enter_now(self) -> None:
        """While it is not closed, for what is no suspect."""
        self._running += 1

    def leave(self) -> None:
        self._running -= 1
        if not self._running:
            self._quiet.set()

    async def enter_alone(self) -> None:
        await anyio.sleep(SHUFFLE.total_seconds() * self._chance.fraction())
        await self._alone.acquire()
        self.is_closed, self._opened = True, asyncio.Event()
        try:
            with anyio.move_on_after(PATIENCE.total_seconds()):
                while self._running:
                    self._quiet = asyncio.Event()
                    await self._quiet.wait()
        except BaseException:
            self.leave_alone()
            raise
        loop = asyncio.get_running_loop()
        self._probation = loop.call_later(PROBATION.total_seconds(), self._open)

    def leave_alone(self) -> None:
        self._open()
        self._alone.release()

    def _open(self) -> None:
        if self._probation is not None:
            self._probation.cancel()
            self._probation = None
        if self.is_closed:
            self.is_closed = False
            self._opened.set()


class _Alone(Struct):
    quarantine: Quarantine

    async def __aenter__(self) -> None:
        await self.quarantine.enter_alone()

    async def __aexit__(self, *_: object) -> None:
        self.quarantine.leave_alone()
