"""How running steps learn that their worker ends, and what becomes of their tasks."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import anyio
import pytest

from durable_worker import Worker
from durable_worker.protocol.names import Names
from durable_worker.transports.memory import MemoryTransport
from tests.integration.worker.desk import serving

pytestmark = pytest.mark.anyio
NAMES = Names()


@pytest.fixture
async def transport() -> AsyncIterator[MemoryTransport]:
    async with MemoryTransport(names=NAMES) as opened:
        yield opened


async def test_a_step_that_is_cancelled_can_clean_up_before_its_task_goes_back(
    transport: MemoryTransport,
) -> None:
    worker, events = Worker(), list[str]()
    started = anyio.Event()

    @worker.step("endless")
    async def endless() -> None:
        started.set()
        try:
            await anyio.sleep_forever()
        finally:
            await anyio.sleep(0.01)
            events.append("cleaned up")

    async with serving(worker, transport, NAMES, grace=timedelta(hours=1)) as desk:
        await desk.send_step("endless")
        await started.wait()
        desk.service.request_stop(hurry=True)
    assert events == ["cleaned up"]
    assert (transport.depth(NAMES.tasks("endless")), desk.unread_results()) == (1, 0)


async def test_a_step_that_finishes_although_it_was_cancelled_is_answered(
    transport: MemoryTransport,
) -> None:
    worker, started = Worker(), anyio.Event()

    @worker.step("stubborn")
    async def stubborn() -> str:
        started.set()
        try:
            await anyio.sleep_forever()
        except asyncio.CancelledError:
            await anyio.sleep(0.01)
        return "done"

    async with serving(worker, transport, NAMES, grace=timedelta(hours=1)) as desk:
        await desk.send_step("stubborn")
        await started.wait()
        desk.service.request_stop(hurry=True)
        result = await desk.result()
    assert bytes(result.output) == b'"done"'
    assert transport.depth(NAMES.tasks("stubborn")) == 0


class Interrupted(Exception):
    pass


class SlowToDeclare(MemoryTransport):
    """Does not get the queues of answers ready before whoever asked first has given up."""

    is_slow = True

    async def declare(self, queues: Sequence[str]) -> None:
        if self.is_slow and NAMES.results in queues:
            self.is_slow = False
            await anyio.sleep_forever()
        await super().declare(queues)


async def test_a_step_that_ran_while_its_worker_was_starting_is_answered_after_a_stop() -> None:
    worker, ran = Worker(), anyio.Event()

    @worker.step("early")
    async def early() -> str:
        ran.set()
        return "done"

    async with SlowToDeclare(names=NAMES) as transport:
        async with serving(worker, transport, NAMES, grace=timedelta(hours=1)) as desk:
            await desk.send_step("early")
            await ran.wait()
            desk.service.request_stop()
            result = await desk.result()
        assert bytes(result.output) == b'"done"'
        assert transport.depth(NAMES.tasks("early")) == 0


async def test_a_step_whose_worker_is_cancelled_has_no_result(transport: MemoryTransport) -> None:
    worker, started, ended = Worker(), anyio.Event(), list[type[BaseException]]()

    @worker.step("endless")
    async def endless() -> None:
        started.set()
        try:
            await anyio.sleep_forever()
        except BaseException as error:
            ended.append(type(error))
            raise

    with pytest.RaisesGroup(Interrupted, flatten_subgroups=True):
        async with serving(worker, transport, NAMES) as desk:
            await desk.send_step("endless")
            await started.wait()
            raise Interrupted
    assert (ended, transport.depth(NAMES.results)) == ([asyncio.CancelledError], 0)
    assert transport.depth(NAMES.tasks("endless")) == 1
