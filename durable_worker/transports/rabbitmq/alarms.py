"""Notices when the broker stops taking messages (memory or disk alarm)."""

import asyncio
from datetime import timedelta

from durable_worker.errors import TransportError
from durable_worker.transports.rabbitmq.link import Link
from durable_worker.transports.rabbitmq.states import Blocked, StateListener, Unblocked


class AlarmWatch:
    """Looks every `period` whether the broker still reads the publishing connection."""

    def __init__(self, *, period: timedelta, emit: StateListener) -> None:
        self._period = period
        self._emit = emit

    async def serve(self, link: Link) -> None:
        while True:
            await asyncio.sleep(self._period.total_seconds())
            if await link.is_blocked():
                self._emit(Blocked())
                await link.unblocked()
                self._emit(Unblocked())

    def refuse(self, error: TransportError) -> None:
        """Nobody waits for it."""
