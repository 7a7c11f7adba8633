"""What has been open for long is renewed, whatever becomes of the single renewal."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
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
        self.ends: list[str] = []
        self._error = error
        self._hangs = hangs
        self._news = asyncio.Event()

    async def ack(self) -> None:
        self.ack_now()

    def ack_now(self) -> None:
        self.ends.append("ack")

    async def release(self) -> None:
        self.ends.append("release")

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
async def renewing() -> AsyncIterator[Renewals]:
    renewals = Renewals(after=AFTER)
    running = asyncio.ensure_future(renewals.run())
    try:
        yield renewals
    finally:
        running.cancel()
        await asyncio.wait([running])


@pytest.mark.parametrize("answer", ["ack", "release"])
async def test_a_delivery_is_renewed_again_and_again_until_it_is_answered(answer: str) -> None:
    async with renewing() as renewals:
        delivery, other = Open(), Open()
        watched = renewals.watch(delivery)
        await delivery.renewed(3)
        await getattr(watched, answer)()
        so_far = delivery.renewals
        renewals.watch(other)
        await other.renewed(3)
        assert (delivery.renewals, delivery.ends) == (so_far, [answer])


async def test_a_delivery_that_is_answered_soon_is_not_renewed() -> None:
    async with renewing() as renewals:
        quick, slow = Open(), Open()
        watched = renewals.watch(quick)
        renewals.watch(slow)
        await watched.ack()
        await slow.renewed(2)
        assert quick.renewals == 0


async def test_a_renewal_that_fails_is_tried_again_and_told_once() -> None:
    with capture_logs() as logs:
        async with renewing() as renewals:
            delivery = Open(error=ConnectionLostError("gone"))
            renewals.watch(delivery)
            await delivery.renewed(3)
    assert [each["event"] for each in logs] == ["message_not_renewed"]
    assert (logs[0]["queue"], logs[0]["reason"]) == ("tasks", "gone")


async def test_a_renewal_that_hangs_holds_up_neither_others_nor_its_own_answer() -> None:
    async with renewing() as renewals:
        stuck, other = Open(hangs=True), Open()
        watched = renewals.watch(stuck)
        renewals.watch(other)
        await other.renewed(3)
        await watched.ack()
        assert (stuck.renewals, stuck.ends) == (1, ["ack"])
