"""The three ways of a client to an operator, with the real operator and worker behind them."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from durable_worker import (
    FatalError,
    RegistrationError,
    StepContext,
    Undo,
    Worker,
    WorkflowContext,
)
from durable_worker.client import Client, RunHandle, broker_client, store_client
from durable_worker.embedded import Embedded
from durable_worker.errors import (
    NoOperatorError,
    PayloadError,
    QueryFailedError,
    RunFailedError,
    RunNotFoundError,
    StoreError,
)
from durable_worker.operator.service import OperatorService
from durable_worker.protocol.names import Names
from durable_worker.protocol.runs import RunQuery, RunStatus
from durable_worker.stores.memory import MemoryStore
from durable_worker.stores.sqlite import SqliteStore
from durable_worker.transports.memory import MemoryTransport
from durable_worker.worker.service import WorkerService

pytestmark = pytest.mark.anyio

PATIENCE = timedelta(seconds=20)

worker = Worker()


@worker.step("double")
async def double(value: int) -> int:
    if value < 0:
        raise FatalError("negative", code="negative", details={"value": value})
    return value * 2


@worker.step("hang")
async def hang(ctx: StepContext) -> None:
    await anyio.sleep_forever()


@worker.workflow("doubling")
async def doubling(ctx: WorkflowContext, value: int) -> int:
    return await ctx.step(double, value)


@worker.workflow("asking")
async def asking(ctx: WorkflowContext, question: str) -> int:
    return await ctx.wait_signal(question, returns=int)


released: list[str] = []


@worker.step("reserve")
async def reserve(item: str) -> str:
    return f"{item} is reserved"


@worker.step("release")
async def release(undo: Undo[str, str], ctx: StepContext) -> None:
    assert not ctx.cancelled
    released.append(undo.output)


@worker.step("attend")
async def attend(item: str, ctx: StepContext) -> None:
    while True:
        ctx.raise_if_cancelled()
        await anyio.sleep(0.005)


@worker.workflow("reserving")
async def reserving(ctx: WorkflowContext, item: str) -> None:
    state = "reserving"
    ctx.on_query("state", lambda: state)
    try:
        await ctx.step(reserve, item, compensate=release)
        state = "reserved"
        await ctx.step(attend, item)
    finally:
        state = "left"


@worker.workflow("hanging")
async def hanging(ctx: WorkflowContext) -> None:
    await ctx.step(hang)


@asynccontextmanager
async def in_process(directory: Path) -> AsyncIterator[Client]:
    async with Embedded(worker, database=directory / "x.db") as client:
        yield client


@asynccontextmanager
async def on_the_database(directory: Path) -> AsyncIterator[Client]:
    path = directory / "x.db"
    async with (
        Embedded(worker, database=path),
        store_client(SqliteStore(path), directory=worker) as client,
    ):
        yield client


@asynccontextmanager
async def over_a_transport(_directory: Path) -> AsyncIterator[Client]:
    names = Names()
    store, transport = MemoryStore(), MemoryTransport(names=names)
    operator = OperatorService(store, transport, names=names)
    service = WorkerService(worker, transport, names=names)
    async with store, transport, anyio.create_task_group() as group:
        group.start_soon(operator.serve)
        group.start_soon(service.serve)
        async with broker_client(transport, names=names, directory=worker) as client:
            yield client
        service.request_stop(hurry=True)
        operator.request_stop()


@pytest.fixture(
    params=[in_process, on_the_database, over_a_transport], ids=lambda way: way.__name__
)
async def client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Client]:
    way: AbstractAsyncContextManager[Client] = request.param(tmp_path)
    released.clear()
    async with way as client:
        yield client


async def test_a_workflow_is_started_by_function_and_its_result_is_typed(client: Client) -> None:
    handle = await client.start(doubling, 21, run_id="r1", tags=["a"])
    assert await handle.result(timeout=PATIENCE) == 42
    detail = await handle.detail()
    assert (detail.run.workflow, detail.run.status) == ("doubling", RunStatus.COMPLETED)
    assert [entry.name for entry in detail.timeline] == ["double"]
    assert await client.is_taken_up()


async def test_starting_a_run_twice_is_one_run(client: Client) -> None:
    first = await client.start("doubling", 1, run_id="r1", returns=int)
    second = await client.start("doubling", 5, run_id="r1", returns=int)
    assert await first.result(timeout=PATIENCE) == await second.result(timeout=PATIENCE) == 2
    assert [run.id for run in await client.list()] == ["r1"]


async def test_a_failed_run_raises_what_it_failed_with(client: Client) -> None:
    handle = await client.start(doubling, -1, run_id="r1")
    with pytest.raises(RunFailedError, match="run 'r1' \\(doubling\\) failed") as caught:
        await handle.result(timeout=PATIENCE)
    assert (caught.value.status, caught.value.run_id) == ("failed", "r1")
    assert "negative" in str(caught.value)


async def test_a_signal_is_delivered_once_for_each_id(client: Client) -> None:
    handle = await client.start(asking, "why", run_id="r1")
    for _ in range(2):
        await client.signal("why", 7, signal_id="s1")
    assert await handle.result(timeout=PATIENCE) == 7
    other = await client.start(asking, "why", run_id="r2")
    await client.signal("why", 8, signal_id="s2")
    assert await other.result(timeout=PATIENCE) == 8


async def test_a_cancelled_run_ends_as_cancelled(client: Client) -> None:
    handle = await client.start(asking, "nobody answers")
    assert await client.is_taken_up()
    await handle.cancel()
    with pytest.raises(RunFailedError) as caught:
        await handle.result(timeout=PATIENCE)
    assert caught.value.status == "cancelled"


async def test_a_cancelled_body_undoes_what_it_has_done(client: Client) -> None:
    handle = await client.start(reserving, "seat 4")
    await _is_reserved(handle)
    assert released == []
    await handle.cancel()
    run = await handle.wait(timeout=PATIENCE)
    assert (run.status, released) == (RunStatus.CANCELLED, ["seat 4 is reserved"])
    assert await handle.query("state", returns=str) == "left"
    timeline = (await handle.detail()).timeline
    assert not [each for each in timeline if each.status == "pending"]


async def test_a_run_that_is_cancelled_at_once_undoes_nothing(client: Client) -> None:
    handle = await client.start(reserving, "seat 5")
    await _is_reserved(handle)
    await handle.cancel(compensate=False)
    run = await handle.wait(timeout=PATIENCE)
    assert (run.status, released) == (RunStatus.CANCELLED, [])
    assert await handle.query("state") == "reserved"


async def _is_reserved(handle: RunHandle[None]) -> None:
    state = None
    while state != "reserved":
        await anyio.sleep(0.02)
        with suppress(QueryFailedError, RunNotFoundError, NoOperatorError):
            state = await handle.query("state", returns=str)


async def test_a_query_without_an_answer_says_what_there_is(client: Client) -> None:
    handle = await client.start(reserving, "seat 6")
    await _is_reserved(handle)
    with pytest.raises(QueryFailedError, match="it has published 'state' so far"):
        await handle.query("nosuch")
    with pytest.raises(PayloadError, match="the answer to query 'state'"):
        await handle.query("state", returns=int)
    with pytest.raises(RunNotFoundError):
        await client.query("nosuch", "state")
    await handle.cancel()


async def test_runs_are_listed_by_status_and_workflow(client: Client) -> None:
    done = await client.start(doubling, 1, run_id="done")
    open_run = await client.start(asking, "q", run_id="open")
    await done.wait(timeout=PATIENCE)
    assert await client.is_taken_up()
    found = await client.list(RunQuery(status=RunStatus.COMPLETED))
    assert [run.id for run in found] == ["done"]
    found = await client.list(RunQuery(workflow="asking"))
    assert [run.id for run in found] == ["open"]
    await open_run.cancel()


async def test_a_wait_ends_with_its_timeout(client: Client) -> None:
    handle = await client.start(asking, "q")
    with pytest.raises(TimeoutError):
        await handle.wait(timeout=timedelta(milliseconds=50))


async def test_an_unknown_run_is_told_as_such(client: Client) -> None:
    for ask in (client.detail, client.cancel):
        with pytest.raises(RunNotFoundError):
            await ask("nosuch")


async def test_what_cannot_be_sent_is_refused_at_once(client: Client) -> None:
    with pytest.raises(PayloadError):
        await client.start("doubling", object())

    async def unregistered(ctx: WorkflowContext) -> None: ...

    with pytest.raises(RegistrationError, match="unregistered"):
        await client.start(unregistered)


async def test_a_client_without_operator_says_so() -> None:
    client = broker_client(MemoryTransport(), timeout=timedelta(milliseconds=50))
    async with client:
        await client.start("doubling", 1)
        assert not await client.is_taken_up(within=timedelta(milliseconds=100))
        with pytest.raises(NoOperatorError, match="durable-worker operator"):
            await client.list()


async def test_what_ran_when_the_process_ended_goes_on_in_the_next(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with Embedded(worker, database=path) as client:
        await client.start(asking, "later", run_id="r1")
    async with Embedded(worker, database=path) as client:
        await client.signal("later", 3)
        assert await client.handle("r1", returns=int).result(timeout=PATIENCE) == 3


async def test_a_hurried_end_does_not_wait_for_steps(tmp_path: Path) -> None:
    embedded = Embedded(worker, database=tmp_path / "x.db")
    with anyio.fail_after(4):
        async with embedded as client:
            await client.start(hanging)
            embedded.hurry()


async def test_an_error_in_the_body_comes_out_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="mine"):
        async with Embedded(worker, database=tmp_path / "x.db"):
            raise LookupError("mine")


async def test_a_database_that_cannot_be_opened_is_an_error_on_entering(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("no database")
    with pytest.raises(StoreError):
        async with Embedded(worker, database=tmp_path / "x.db"):
            raise AssertionError("it was entered")
