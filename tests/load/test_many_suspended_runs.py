"""An operator beside very many suspended runs: 20,000 in every session, a million with `make load`.

`LOAD_RUNS` says how many `make load` takes.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from functools import partial
from random import Random

import msgspec
import pytest

from durable_worker.protocol.runs import RunFacets, RunQuery, RunStatus
from durable_worker.stores.address import PostgresAddress
from durable_worker.stores.postgres import PostgresStore
from tests.load.filling import CUSTOMER, connected, multiply, name_of
from tests.load.stage import Stage, p95, staged, timed

pytestmark = [pytest.mark.anyio, pytest.mark.broker]

SELECTION = 20_000
MILLION = int(os.environ.get("LOAD_RUNS") or 1_000_000)

TEMPLATES = {
    "load.approval": "approval-template",
    "load.reminder": "reminder-template",
    "load.offer": "offer-template",
}
CUSTOMER_77 = {"customer": "customer-77"}
ROUNDS = 3
"""Others use this machine too: of so many rounds one has to hold."""

MOST_MEGABYTES = 100
FIRST_DISPATCH_SECONDS = 5.0
PAGE_SECONDS = 0.1
BESIDE_SECONDS = 0.2
WAKE_SECONDS = 1.0
LATE_SECONDS = 1.0
PATIENCE = 120.0


@pytest.mark.parametrize(
    "runs",
    [
        pytest.param(SELECTION, id="a selection"),
        pytest.param(MILLION, id="all of them", marks=[pytest.mark.load, pytest.mark.timeout(0)]),
    ],
)
async def test_an_operator_beside_many_suspended_runs_is_as_quick_as_alone(
    runs: int, schema: PostgresAddress, broker_url: str, prefix: str
) -> None:
    async with asyncio.timeout(PATIENCE + runs / 500), staged(schema, broker_url, prefix) as stage:
        each = runs // len(TEMPLATES)
        await suspend(stage, each)
        begun = await held(FIRST_DISPATCH_SECONDS, lambda: first_dispatch(stage))
        said = stage.operator.said(3_000)
        at_rest = stage.operator.rss_megabytes()
        pages = await held(PAGE_SECONDS, lambda: pages_of(stage, each))
        facets = await counted(stage, each)
        beside = await held(BESIDE_SECONDS, lambda: pages_beside_counts(stage, each))
        woken = await held(WAKE_SECONDS, lambda: signalled(stage, each))
        late = await held(LATE_SECONDS, lambda: lateness_of_timers(stage))
        peak = stage.operator.peak_megabytes()
    told = {
        "runs": 3 * each,
        "first dispatch, s": begun,
        "page p95, s": pages,
        "facets, s": facets,
        "page p95 beside those": beside,
        "signal to end p95, s": woken,
        "latest timer, s": late,
        "memory at rest, MB": at_rest,
        "memory at most, MB": peak,
    }
    print("\n" + "\n".join(f"  {name:22} {value:,.3f}" for name, value in told.items()))
    assert begun < FIRST_DISPATCH_SECONDS, (told, said)
    assert pages < PAGE_SECONDS, told
    assert beside < BESIDE_SECONDS, told
    assert woken < WAKE_SECONDS, told
    assert late < LATE_SECONDS, told
    assert peak < MOST_MEGABYTES, told


async def held(bound: float, measure: Callable[[], Awaitable[float]]) -> float:
    """The first that is within the bound, or the last."""
    for _ in range(ROUNDS - 1):
        if (found := await measure()) < bound:
            return found
    return await measure()


async def suspend(stage: Stage, each: int) -> None:
    """One run of each kind for real, then copies of what the operator has written of it."""
    tags, told = ["orders", CUSTOMER], {"customer": CUSTOMER}
    for workflow, run_id in TEMPLATES.items():
        await stage.client.start(workflow, run_id, run_id=run_id, tags=tags, search_attributes=told)
    for run_id in TEMPLATES.values():
        while not await is_settled(stage, run_id):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    began = time.monotonic()
    await multiply(stage.schema, list(TEMPLATES.values()), each=each)
    print(f"\n  {3 * each:,} runs made in {time.monotonic() - began:.0f} s")


async def is_settled(stage: Stage, run_id: str) -> bool:
    async with PostgresStore(stage.schema) as store:
        state = await store.load(run_id)
        return (
            state is not None
            and state.run.status is RunStatus.SUSPENDED
            and len(state.checkpoints) > 1
            and not await store.outbox()
        )


async def first_dispatch(stage: Stage) -> float:
    """Seconds from the start of an operator's process until a step runs, of a run that was asked
    for while there was none: the one before was killed."""
    stage.kill_operator()
    handle = await stage.client.start("load.stamp", "first")
    began = stage.start_operator()
    stamped: float = await handle.result()
    return stamped - began


async def pages_of(stage: Stage, each: int) -> float:
    """p95 of pages at the top, further down and in the middle, however they are filtered."""
    middle = await cursor_at(stage, name_of("approval-template", each // 2))
    queries = [
        RunQuery(),
        RunQuery(status=RunStatus.SUSPENDED),
        RunQuery(status=RunStatus.COMPLETED),
        RunQuery(status=RunStatus.FAILED),
        RunQuery(statuses=[RunStatus.SUSPENDED, RunStatus.RUNNING]),
        RunQuery(workflow="load.offer"),
        RunQuery(workflow="load.offer", status=RunStatus.SUSPENDED),
        RunQuery(tag="orders"),
        RunQuery(tag="orders", workflow="load.reminder"),
        RunQuery(tag="customer-77"),
        RunQuery(tag="customer-77", status=RunStatus.SUSPENDED),
        RunQuery(tag="nobody"),
        RunQuery(search_attributes=CUSTOMER_77),
        RunQuery(search_attributes=CUSTOMER_77, workflow="load.offer"),
        RunQuery(search_attributes={"customer": "nobody"}),
    ]
    by_tag, by_attribute = [
        await stage.client.page(each)
        for each in (RunQuery(tag="customer-77"), RunQuery(search_attributes=CUSTOMER_77))
    ]
    assert by_attribute == by_tag
    assert by_tag.runs
    spent: list[float] = []
    for query in 2 * queries:
        first = await stage.client.page(query)
        for after in (None, first.next, middle):
            spent.append(await timed(partial(stage.client.page, query, after=after)))
    return p95(spent)


async def cursor_at(stage: Stage, run_id: str) -> str:
    async with connected(stage.schema) as connection:
        created_at = await connection.fetchval("SELECT created_at FROM runs WHERE id = $1", run_id)
    return f"{created_at}:{run_id}"


async def counted(stage: Stage, each: int) -> float:
    """Seconds that it takes to count them all."""
    spent: list[float] = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        data = await stage.port._ask(RunFacets(query=RunQuery()))
        spent.append(time.perf_counter() - began)
        found = msgspec.json.decode(data)
        assert found["workflows"]["load.offer"] == each - each // 10 + 1
        assert sum(found["statuses"].values()) == sum(found["workflows"].values())
    return min(spent)


async def pages_beside_counts(stage: Stage, each: int) -> float:
    """As `pages_of`, while three others count all runs again and again."""

    async def count() -> None:
        while True:
            await stage.port._ask(RunFacets(query=RunQuery()))

    async with asyncio.TaskGroup() as group:
        counting = [group.create_task(count()) for _ in range(3)]
        spent = await pages_of(stage, each)
        for task in counting:
            task.cancel()
    return spent


async def signalled(stage: Stage, each: int) -> float:
    """p95 of the seconds from a signal to the end of the one run of all that waits for it."""
    numbers = [n for n in Random().sample(range(1, each + 1), min(60, each // 100)) if n % 10]
    spent: list[float] = []
    for number in numbers:
        run_id = name_of("approval-template", number)
        spent.append(await timed(partial(approve, stage, run_id)))
    return p95(spent)


async def approve(stage: Stage, run_id: str) -> None:
    handle = await stage.client.get(run_id, returns=str)
    await stage.client.signal(f"approve:{run_id}", "yes")
    assert await handle.result() == "yes"


async def lateness_of_timers(stage: Stage) -> float:
    """Of 300 among all that are pending, in seconds."""
    handles = [await stage.client.start("load.nap", 3_000 + number) for number in range(300)]
    await asyncio.gather(*(handle.result() for handle in handles))
    names = [handle.run_id for handle in handles]
    async with PostgresStore(stage.schema) as store:
        states = await store.load_many(names)
    assert len(states) == len(names)
    late = [
        (slept.finished_at or 0) - slept.enqueued_at - 3_000 - number
        for number, name in enumerate(names)
        for slept in states[name].checkpoints.values()
    ]
    return max(late) / 1000
