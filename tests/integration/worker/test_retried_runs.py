"""Runs that have failed with a group of steps, and are retried."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from durable_worker import FatalError, StepContext, Worker, WorkflowContext
from durable_worker.embedded import Embedded
from durable_worker.errors import RunFailedError

pytestmark = pytest.mark.anyio

SOON = timedelta(seconds=20)


def a_worker(*, is_broken: bool) -> Worker:
    worker = Worker()
    begun = asyncio.Event()

    @worker.step("slow")
    async def slow(ctx: StepContext) -> int:
        if is_broken:
            begun.set()
            await asyncio.Event().wait()
        return ctx.attempt

    @worker.step("charge")
    async def charge(ctx: StepContext) -> int:
        if is_broken:
            await begun.wait()
            raise FatalError("no money")
        return ctx.attempt

    @worker.workflow("both")
    async def both(ctx: WorkflowContext) -> list[int]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ctx.step(each)) for each in (slow, charge)]
        return [each.result() for each in tasks]

    return worker


async def test_a_step_that_was_given_up_because_another_failed_is_called_again(
    tmp_path: Path,
) -> None:
    database = tmp_path / "x.db"
    async with Embedded(a_worker(is_broken=True), database=database) as client:
        handle = await client.start("both", run_id="r")
        with pytest.raises(RunFailedError, match="TaskGroup"):
            await handle.result(timeout=SOON)
        timeline = (await handle.detail()).timeline
        assert [each.error.code for each in timeline if each.error] == ["cancelled", "FatalError"]
    async with Embedded(a_worker(is_broken=False), database=database) as client:
        handle = client.handle("r")
        await handle.retry()
        assert await handle.result(timeout=SOON) == [2, 2]
