"""What has been open for long is renewed, whatever becomes of the single renewal."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from structlog.testing import capture_logs

from durable_worker.errors import ConnectionLostError
from durable_worker.transports.base import Envelope
from durable_worker.worker.renewal import Renewals

AFTER = timedelta(milliseconds=20)


class Open:
    """A delivery that tells how often it was renewed."""

    queue = "tasks"
    delivery_count = 0
    envelope = Envelope(None, b"")

    def __init__(self, *, error: Exception | None = None, hangs: bool = False) -> None:
        self.renewals = 0
        self._error = error
        self._hangs = hangs
        self._news = asyncio.Event()

    async def ack(self) -> None: ...
    def ack_now(self) -> None: ...
    async def release(self) -> None: ...
    async def renew(self) -> None:
        self.renewals += 1
        self._news.set()
        if self._hangs:
            await asyncio.Event().wait()
        if self._error is not None:
            raise self._error

    async def renewed(self, times: int) -> None:
        async with asyncio.timeout(20):
            while self.renewals < times:
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def renewing(*, after: timedelta = AFTER) -> AsyncIterator[list[Open]]:
    """What is in the list is open."""
    deliveries = list[Open]()
    running = asyncio.ensure_future(Renewals(lambda: deliveries, after=after).run())
    try:
        yield deliveries
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_a_delivery_is_renewed_again_and_again_as_long_as_it_is_open() -> None:
    async with renewing() as deliveries:
        delivery, other = Open(), Open()
        deliveries.append(delivery)
        await delivery.renewed(3)
        deliveries[:] = [other]
        so_far = delivery.renewals
        await other.renewed(3)
        assert delivery.renewals == so_far


async def test_only_what_stays_open_for_long_is_renewed() -> None:
    async with renewing(after=timedelta(milliseconds=500)) as deliveries:
        slow, quick = Open(), list[Open]()
        deliveries.append(slow)
        while not slow.renewals:
            quick.append(Open())
            deliveries[1:] = quick[-3:]
            await asyncio.sleep(0.005)
        assert {each.renewals for each in quick} == {0}


async def test_a_renewal_that_fails_is_tried_again_and_told_once() -> None:
    with capture_logs() as logs:
        async with renewing() as deliveries:
            delivery = Open(error=ConnectionLostError("gone"))
            deliveries.append(delivery)
            await delivery.renewed(3)
    assert [each["event"] for each in logs] == ["message_not_renewed"]
    assert (logs[0]["queue"], logs[0]["reason"]) == ("tasks", "gone")


async def test_a_renewal_that_hangs_holds_up_no_others_and_is_not_begun_twice() -> None:
    async with renewing() as deliveries:
        stuck, other = Open(hangs=True), Open()
        deliveries += [stuck, other]
        await other.renewed(3)
        assert stuck.renewals == 1
