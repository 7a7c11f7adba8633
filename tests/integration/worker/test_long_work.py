"""Every message that a worker has not answered is renewed, whatever keeps it."""

import asyncio
from datetime import timedelta

import pytest

from durable_worker import Worker
from durable_worker.protocol.names import Names
from durable_worker.transports import memory
from durable_worker.transports.base import Delivery, Envelope, Told
from durable_worker.transports.memory import MemoryTransport
from tests.integration.worker.desk import eventually, serving

NAMES = Names()
RENEW_AFTER = timedelta(milliseconds=50)


class Silent(MemoryTransport):
    """Takes what is posted, and does not say that it has arrived."""

    def __init__(self) -> None:
        super().__init__(names=NAMES)
        self.waiting: list[Told] = []

    def post(self, queue: str, envelope: Envelope, told: Told) -> bool:
        self.put(queue, envelope)
        self.waiting.append(told)
        return True


@pytest.fixture
def renewed(monkeypatch: pytest.MonkeyPatch) -> set[Delivery]:
    found = set[Delivery]()

    async def renew(self: Delivery) -> None:
        found.add(self)

    monkeypatch.setattr(memory._Message, "renew", renew)
    return found


@pytest.mark.anyio
async def test_what_runs_what_waits_for_a_slot_and_what_came_twice_is_renewed(
    renewed: set[Delivery],
) -> None:
    worker, gate = Worker(), asyncio.Event()

    @worker.step("slow")
    async def slow() -> None:
        await gate.wait()

    @worker.step("other")
    async def other() -> None:
        await gate.wait()

    async with (
        MemoryTransport(names=NAMES) as transport,
        serving(worker, transport, NAMES, concurrency=2, renew_after=RENEW_AFTER) as desk,
    ):
        first = await desk.send_step("slow")
        await desk.send_step("slow", seq=first.seq)
        for _ in range(2):
            await desk.send_step("other")
        await eventually(lambda: len(renewed) == 4)
        gate.set()
        for _ in range(3):
            await desk.result()


@pytest.mark.anyio
async def test_what_is_answered_is_renewed_no_more(renewed: set[Delivery]) -> None:
    worker, gate = Worker(), asyncio.Event()

    @worker.step("slow")
    async def slow(is_held: bool) -> None:
        if is_held:
            await gate.wait()

    async with (
        Silent() as transport,
        serving(worker, transport, NAMES, renew_after=RENEW_AFTER) as desk,
    ):
        await desk.send_step("slow", False)
        await desk.result()
        await eventually(lambda: len(renewed) == 1)
        (answered,) = renewed
        transport.waiting.pop()(None)
        await desk.send_step("slow", True)
        renewed.clear()
        for _ in range(3):  # a round of renewals takes in all that is open for long
            await eventually(lambda: renewed)
            assert answered not in renewed
            renewed.clear()
        gate.set()
        await desk.result()
        transport.waiting.pop()(None)


@pytest.mark.anyio
async def test_what_is_answered_but_not_confirmed_is_renewed(renewed: set[Delivery]) -> None:
    worker = Worker()

    @worker.step("quick")
    async def quick() -> int:
        return 1

    async with (
        Silent() as transport,
        serving(worker, transport, NAMES, renew_after=RENEW_AFTER) as desk,
    ):
        await desk.send_step("quick")
        assert bytes((await desk.result()).output) == b"1"
        await eventually(lambda: len(renewed) == 1)
        for told in transport.waiting:
            told(None)
