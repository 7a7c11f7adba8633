"""Keeps the broker from taking back what this worker has not answered for long.

A broker gives a message that stays unanswered to another worker (RabbitMQ: `consumer_timeout`).
Whatever is open for long, because it runs or because it waits for its turn, is renewed again and
again until it is answered. See protocol/README.md, "Long work".
"""

import asyncio
from datetime import timedelta

import anyio
import structlog
from anyio.abc import TaskGroup
from msgspec import Struct

from durable_worker.errors import TransportError
from durable_worker.transports.base import Delivery, Envelope

log = structlog.get_logger("durable_worker.worker")

LOOKS = 5
"""How often within the time that a delivery may be open its age is looked at."""

WARN_EVERY = timedelta(minutes=1)


class Renewals:
    """Renews what has been open for longer than `after`; each time counts from anew."""

    def __init__(self, *, after: timedelta) -> None:
        self._after = after.total_seconds()
        self._time = asyncio.get_running_loop().time
        self._due: dict[_Watched, float] = {}  # in the order in which they are due
        self._warn_again_at = 0.0

    def watch(self, delivery: Delivery) -> Delivery:
        """The delivery to use in place of this one."""
        watched = _Watched(delivery, self._due)
        self._due[watched] = self._time() + self._after
        return watched

    async def run(self) -> None:
        async with anyio.create_task_group() as group:
            while True:
                await anyio.sleep(self._after / LOOKS)
                self._renew_due(group)

    def _renew_due(self, group: TaskGroup) -> None:
        now = anyio.current_time()
        while self._due:
            watched = next(iter(self._due))
            if self._due[watched] > now:
                return
            del self._due[watched]
            group.start_soon(self._renew, watched)

    async def _renew(self, watched: "_Watched") -> None:
        try:
            await watched.renew()
        except TransportError as error:
            self._warn(watched, error)
        if not watched.is_answered:
            self._due[watched] = anyio.current_time() + self._after

    def _warn(self, watched: "_Watched", error: TransportError) -> None:
        now = anyio.current_time()
        if not watched.is_answered and now >= self._warn_again_at:
            self._warn_again_at = now + WARN_EVERY.total_seconds()
            log.warning("message_not_renewed", queue=watched.queue, reason=str(error))


class _Watched(Struct, eq=False):
    """A delivery whose age is looked at until it is answered."""

    delivery: Delivery
    due: "dict[_Watched, float]"
    is_answered: bool = False

    @property
    def queue(self) -> str:
        return self.delivery.queue

    @property
    def envelope(self) -> Envelope:
        return self.delivery.envelope

    @property
    def delivery_count(self) -> int:
        return self.delivery.delivery_count

    async def ack(self) -> None:
        self.ack_now()

    def ack_now(self) -> None:
        self.is_answered = True
        self.due.pop(self, None)
        self.delivery.ack_now()

    async def release(self) -> None:
        self.is_answered = True
        self.due.pop(self, None)
        await self.delivery.release()

    async def renew(self) -> None:
        await self.delivery.renew()
