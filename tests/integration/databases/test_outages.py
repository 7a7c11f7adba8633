"""The database goes away under load and comes back: nothing is lost, nothing is done twice."""

import asyncio
from collections import Counter

import pytest

from durable_worker import Worker, WorkflowContext
from durable_worker.embedded import Embedded
from durable_worker.protocol.runs import RunQuery
from durable_worker.stores.address import ServerAddress
from durable_worker.stores.opening import store_at
from tests.integration.databases.conftest import OwnServer

pytestmark = pytest.mark.anyio

RUNS, STEPS = 30, 6


class Counting:
    """Runs of a few steps each; `done` counts how often each step ran."""

    def __init__(self) -> None:
        self.worker = Worker()
        self.done: Counter[str] = Counter()
        self.has_begun = asyncio.Event()

        @self.worker.step("count")
        async def count(name: str) -> str:
            self.done[name] += 1
            if len(self.done) > RUNS:
                self.has_begun.set()
            return name

        @self.worker.workflow("counting")
        async def counting(ctx: WorkflowContext, run: str) -> list[str]:
            return [await ctx.step(count, f"{run}:{number}") for number in range(STEPS)]


@pytest.mark.parametrize("way", ["stop", "kill"])
async def test_runs_go_on_when_the_database_is_back(way: str, own_server: OwnServer) -> None:
    app, server = Counting(), own_server.server
    end = server.stop if way == "stop" else server.kill
    with own_server.database() as database:
        async with Embedded(app.worker, database=database) as client:
            handles = [await client.start("counting", f"r{n}") for n in range(RUNS)]
            await app.has_begun.wait()
            for _ in range(2):
                await asyncio.to_thread(end)
                await asyncio.to_thread(server.start)
            outputs = [await each.result() for each in handles]
        assert outputs == [[f"r{n}:{step}" for step in range(STEPS)] for n in range(RUNS)]
        assert app.done == Counter(
            {f"r{n}:{step}": 1 for n in range(RUNS) for step in range(STEPS)}
        )
        await check_history(database)


async def check_history(database: ServerAddress) -> None:
    async with store_at(database) as store:
        found = await store.load_many([run.id for run in await store.list_runs(RunQuery())])
        assert len(found) == RUNS
        assert all(len(state.checkpoints) == STEPS for state in found.values())
        assert all(not state.pending for state in found.values())
        assert await store.outbox() == []
