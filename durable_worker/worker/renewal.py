"""Keeps the broker from taking back what this worker has not answered for long.

A broker gives a message that stays unanswered to another worker (RabbitMQ: `consumer_timeout`).
Whatever is open for long, because it runs or because it waits for its turn, is renewed again and
again until it is answered. See protocol/README.md, "Long work".
"""

from collections.abc import Callable, Iterable
from datetime import timedelta

import anyio
import structlog
from anyio.abc import TaskGroup

from durable_worker.errors import TransportError
from durable_worker.transports.base import Delivery

log = structlog.get_logger("durable_worker.worker")

LOOKS = 10
"""How often within the time that a delivery may be open its age is looked at."""

WARN_EVERY = timedelta(minutes=1)


class Renewals:
    """Renews what has been open for about `after`; each time counts from anew.

    `look` gives the deliveries that are open now. Their ages are those of the looks that have seen
    them, so that one which is answered soon costs nothing.
    """

    def __init__(self, look: Callable[[], Iterable[Delivery]], *, after: timedelta) -> None:
        self._look = look
        self._pause = after.total_seconds() / LOOKS
        self._most = after.total_seconds() - self._pause
        self._since: dict[Delivery, float] = {}
        self._renewing: set[Delivery] = set()
        self._warn_again_at = 0.0

    async def run(self) -> None:
        async with anyio.create_task_group() as group:
            while True:
                await anyio.sleep(self._pause)
                self._renew_due(group)

    def _renew_due(self, group: TaskGroup) -> None:
        now, since = anyio.current_time(), self._since
        self._since = {each: since.get(each, now) for each in self._look()}
        for delivery, first_seen in self._since.items():
            if now - first_seen >= self._most and delivery not in self._renewing:
                self._renewing.add(delivery)
                group.start_soon(self._renew, delivery)

    async def _renew(self, delivery: Delivery) -> None:
        try:
            await delivery.renew()
        except TransportError as error:
            self._warn(delivery, error)
        finally:
            self._renewing.discard(delivery)
            if delivery in self._since:
                self._since[delivery] = anyio.current_time()

    def _warn(self, delivery: Delivery, error: TransportError) -> None:
        now = anyio.current_time()
        if now >= self._warn_again_at and delivery in {*self._look()}:
            self._warn_again_at = now + WARN_EVERY.total_seconds()
            log.warning("message_not_renewed", queue=delivery.queue, reason=str(error))
