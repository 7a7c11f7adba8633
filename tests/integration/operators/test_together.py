"""Several operators on one database: whichever takes a message, what comes of it is the same."""

import asyncio
from collections import Counter
from datetime import timedelta

import pytest
from msgspec import Raw

from durable_worker import Worker, WorkflowContext
from durable_worker.protocol.runs import RunQuery
from durable_worker.stores.address import PostgresAddress
from durable_worker.stores.postgres import PostgresStore
from tests.database import Postgres
from tests.integration.operators.stage import operating

pytestmark = [pytest.mark.anyio, pytest.mark.broker]

RUNS = 60
LONGEST = 90

worker = Worker()
done: Counter[str] = Counter()


@worker.step("many.work")
async def work(name: str) -> str:
    done[name] += 1
    return name


@worker.workflow("many.wide")
async def wide(ctx: WorkflowContext, name: str) -> list[str]:
    """Answers that come at once, to whichever operator."""
    first = await asyncio.gather(*(ctx.step(work, f"{name}:{n}") for n in range(10)))
    return [*first, await ctx.step(work, f"{name}:last")]


@worker.workflow("many.waiting")
async def waiting(ctx: WorkflowContext, name: str) -> list[str]:
    return [await ctx.wait_signal(f"{name}:{n}", returns=str) for n in range(3)]


@worker.workflow("many.parent")
async def parent(ctx: WorkflowContext, name: str) -> list[list[str]]:
    children = [ctx.child(wide, f"{name}/{n}") for n in range(3)]
    return list(await asyncio.gather(*children))


@worker.workflow("many.sleeping")
async def sleeping(ctx: WorkflowContext, seconds: float) -> None:
    await ctx.sleep(timedelta(seconds=seconds))


def steps_of(name: str) -> list[str]:
    return [f"{name}:{each}" for each in (*range(10), "last")]


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    done.clear()


async def test_answers_that_reach_different_operators_are_all_recorded_once(
    schema: PostgresAddress, broker_url: str, prefix: str
) -> None:
    async with operating(3, worker, schema=schema, url=broker_url, prefix=prefix) as stage:
        names = [f"r{number}" for number in range(RUNS)]
        async with asyncio.timeout(LONGEST):
            handles = [await stage.client.start("many.wide", name, run_id=name) for name in names]
            outputs = [await each.result() for each in handles]
    assert outputs == [steps_of(name) for name in names]
    assert done == Counter({step: 1 for name in names for step in steps_of(name)})
    async with PostgresStore(schema) as store:
        found = await store.load_many(names)
        assert [sorted(found[name].checkpoints) for name in names] == [list(range(11))] * RUNS
        assert await store.outbox() == []


async def test_no_signal_misses_its_wait(
    schema: PostgresAddress, broker_url: str, prefix: str
) -> None:
    async with operating(3, worker, schema=schema, url=broker_url, prefix=prefix) as stage:
        client = stage.client

        async def send(name: str) -> None:
            for _ in range(2):
                await client.signal(name, name[-1], signal_id=name)

        async def run(name: str) -> object:
            handle, *_ = await asyncio.gather(
                client.start("many.waiting", name, run_id=name),
                *(send(f"{name}:{n}") for n in (2, 0, 1)),
            )
            return await handle.result()

        async with asyncio.timeout(LONGEST):
            outputs = await asyncio.gather(*(run(f"r{number}") for number in range(RUNS)))
    assert outputs == [["0", "1", "2"]] * RUNS
    async with PostgresStore(schema) as store:
        assert await store.buffered_signals("default", "r0:0", limit=9) == []
        assert await store.outbox() == []


async def test_children_report_to_their_parent_whoever_hears_of_their_end(
    schema: PostgresAddress, broker_url: str, prefix: str
) -> None:
    async with operating(3, worker, schema=schema, url=broker_url, prefix=prefix) as stage:
        async with asyncio.timeout(LONGEST):
            handles = [
                await stage.client.start("many.parent", f"p{number}", run_id=f"p{number}")
                for number in range(10)
            ]
            outputs = [await each.result() for each in handles]
    assert outputs == [[steps_of(f"p{each}/{n}") for n in range(3)] for each in range(10)]
    assert set(done.values()) == {1}


async def test_whoever_waits_beside_one_operator_hears_of_runs_that_end_at_another(
    schema: PostgresAddress, broker_url: str, prefix: str
) -> None:
    async with operating(2, worker, schema=schema, url=broker_url, prefix=prefix) as stage:
        names = [f"r{number}" for number in range(20)]
        async with asyncio.timeout(LONGEST):
            first, second = stage.operators
            for name in names:
                await first.start("many.wide", Raw(f'"{name}"'.encode()), run_id=name)
            ends = [each.wait(name) for each in (first, second) for name in names]
            assert [run.id for run in await asyncio.gather(*ends)] == [*names, *names]


async def test_a_start_that_is_asked_for_many_times_begins_one_run(
    schema: PostgresAddress, broker_url: str, prefix: str
) -> None:
    async with operating(3, worker, schema=schema, url=broker_url, prefix=prefix) as stage:
        async with asyncio.timeout(LONGEST):
            for number in range(10):
                name = f"r{number}"
                handles = await asyncio.gather(
                    *(stage.client.start("many.wide", name, run_id=name) for _ in range(12))
                )
                assert await handles[0].result() == steps_of(name)
        assert len(await stage.client.list(RunQuery())) == 10
    assert set(done.values()) == {1}


async def test_timers_fire_within_a_second_among_a_hundred_thousand(
    postgres: Postgres, schema: PostgresAddress, broker_url: str, prefix: str
) -> None:
    postgres.execute(
        f"SET search_path = {schema.schema};"
        "INSERT INTO runs SELECT 'later' || n, 'many.sleeping', '1', 'default', NULL, 'suspended',"
        " NULL, NULL, NULL, NULL, NULL, '{}', NULL, 1, 1, 1, NULL, false, 0, 1"
        " FROM generate_series(1, 100000) AS n;"
        "INSERT INTO checkpoints (run_id, seq, kind, name, status, attempt, fires_at, enqueued_at,"
        " recoveries) SELECT 'later' || n, 0, 'sleep', 'sleep:0', 'pending', 1,"
        " 9000000000000 + n, 1, 0 FROM generate_series(1, 100000) AS n;"
    )
    names = [f"r{number}" for number in range(200)]
    async with operating(2, worker, schema=schema, url=broker_url, prefix=prefix) as stage:
        async with asyncio.timeout(LONGEST):
            handles = await asyncio.gather(
                *(
                    stage.client.start("many.sleeping", 4 + number / 200, run_id=name)
                    for number, name in enumerate(names)
                )
            )
            await asyncio.gather(*(each.result() for each in handles))
    async with PostgresStore(schema) as store:
        found = await store.load_many(names)
    slept = [found[name].checkpoints[0] for name in names]
    late = [each.finished_at - each.enqueued_at for each in slept if each.finished_at is not None]
    assert len(late) == len(names)
    wanted = [4000 + 5 * number for number in range(len(names))]
    assert max(was - should for was, should in zip(late, wanted, strict=True)) < 1_000
