"""Attempts that the operator gives up, with a real worker."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from durable_worker import Retry, StepContext, StepTimeoutError, Worker, WorkflowContext
from durable_worker.protocol.names import Names
from durable_worker.protocol.payload import plain_json
from durable_worker.protocol.runs import RunStatus
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.base import Store
from durable_worker.stores.memory import MemoryStore
from durable_worker.stores.sqlite import SqliteStore
from durable_worker.transports.memory import MemoryTransport
from durable_worker.worker.service import WorkerService
from tests.integration.operator.scripted import json, operating

pytestmark = pytest.mark.anyio

TWICE = Retry(attempts=2, initial=timedelta(0))


def impatient(attempts: list[int], *, hangs_until: int) -> Worker:
    worker = Worker()

    @worker.step("slow")
    async def slow(ctx: StepContext) -> int:
        attempts.append(ctx.attempt)
        if ctx.attempt < hangs_until:
            await asyncio.Event().wait()
        return ctx.attempt

    @worker.workflow("flow", version="1")
    async def flow(ctx: WorkflowContext) -> str:
        try:
            return f"attempt {await ctx.step(slow, timeout=0.1, retries=TWICE)}"
        except StepTimeoutError as error:
            return str(error)

    return worker


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize(
    ("hangs_until", "output"),
    [
        (1, "attempt 1"),
        (2, "attempt 2"),
        (9, "step 'slow' failed [timeout]: no result came within 0.1 s"),
    ],
)
async def test_an_attempt_that_takes_too_long_is_given_up_without_a_turn(
    kind: str, hangs_until: int, output: str, tmp_path: Path
) -> None:
    names, attempts = Names(), list[int]()
    store: Store = MemoryStore() if kind == "memory" else SqliteStore(tmp_path / "db")
    transport = MemoryTransport(names=names)
    service = WorkerService(impatient(attempts, hangs_until=hangs_until), transport, names=names)
    async with (
        store,
        transport,
        operating(store, transport, names) as operator,
        asyncio.TaskGroup() as group,
    ):
        serving = group.create_task(service.serve())
        run = await operator.wait(await operator.start("flow", json(None)))
        service.request_stop(hurry=True)
        await serving
        state = await store.load(run.id)
    assert (run.status, plain_json(run.output)) == (RunStatus.COMPLETED, output)
    assert attempts == [*range(1, min(hangs_until, 2) + 1)]
    assert state is not None
    assert state.run.turn_no == 2
    assert [each.kind for each in state.checkpoints.values()] == [
        HistoryKind.STEP,
        HistoryKind.CALL,
    ]
