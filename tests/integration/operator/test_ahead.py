"""Steps of a process that holds operator and worker are called before their decisions are recorded,
and nothing is lost by it."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from durable_worker import StepContext, Worker, WorkflowContext
from durable_worker.client import Client
from durable_worker.embedded import Embedded
from durable_worker.errors import RunFailedError, StoreError
from durable_worker.operator import engine
from durable_worker.operator.options import OperatorOptions
from durable_worker.operator.service import OperatorService
from durable_worker.own_operator import OwnOperatorPort
from durable_worker.protocol.codec import MessageType
from durable_worker.protocol.names import Names
from durable_worker.stores.base import Batch, Store
from durable_worker.stores.memory import MemoryStore
from durable_worker.transports.base import Envelope
from durable_worker.transports.memory import MemoryTransport
from durable_worker.worker.options import WorkerOptions
from durable_worker.worker.service import WorkerService
from tests.integration.operator.waiting import eventually

pytestmark = pytest.mark.anyio

PATIENCE = timedelta(seconds=20)


def recorded(database: Path, run_id: str) -> dict[int, tuple[str, str, bytes | None]]:
    """Name, status and output at each seq, as another process reads them."""
    with sqlite3.connect(database) as connection:
        rows = connection.execute(
            "SELECT seq, name, status, output FROM checkpoints WHERE run_id = ?", (run_id,)
        ).fetchall()
    return {seq: (name, status, output) for seq, name, status, output in rows}


@pytest.fixture
def never_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is recorded because time has passed."""
    monkeypatch.setattr(engine, "_TIDY_SECONDS", 3_600.0)


@pytest.mark.usefixtures("never_by_itself")
async def test_a_step_is_called_once_all_that_it_rests_on_is_recorded(tmp_path: Path) -> None:
    worker, database = Worker(), tmp_path / "x.db"
    seen: list[dict[int, tuple[str, str, bytes | None]]] = []

    @worker.step("step")
    async def step(number: int, ctx: StepContext) -> int:
        seen.append(recorded(database, ctx.run_id))
        return number + 1

    @worker.step("drawn")
    async def drawn(number: float, ctx: StepContext) -> float:
        seen.append(recorded(database, ctx.run_id))
        return number

    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext) -> int:
        first = await ctx.step(step, 1)
        second = await ctx.step(step, first)
        await ctx.step(drawn, ctx.side_effect(lambda: 0.5))
        return second

    @worker.workflow("nothing")
    async def nothing(ctx: WorkflowContext) -> None:
        pass

    async with Embedded(worker, database=database) as client:
        await operator_and_worker_have_met(client)
        handle = await client.start(flow, run_id="r")
        assert await handle.result(timeout=PATIENCE) == 3

    one, two = (0, ("step", "completed", b"2")), (1, ("step", "completed", b"3"))
    record = (2, ("sideEffect", "completed", b"0.5"))
    call = (3, ("drawn", "pending", None))
    # The first two are called ahead of their decisions; that with a value that was drawn is not.
    assert seen == [{}, dict([one]), dict([one, two, record, call])]
    assert recorded(database, "r") == dict([one, two, record, (3, ("drawn", "completed", b"0.5"))])


def waiting_worker(begun: asyncio.Event, go_on: asyncio.Event) -> Worker:
    worker = Worker()

    @worker.step("long")
    async def long() -> None:
        begun.set()
        await go_on.wait()

    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext) -> None:
        await ctx.step(long)

    @worker.workflow("nothing")
    async def nothing(ctx: WorkflowContext) -> None:
        pass

    return worker


async def operator_and_worker_have_met(client: Client) -> None:
    await (await client.start("nothing")).result(timeout=PATIENCE)


@pytest.mark.usefixtures("never_by_itself")
async def test_whoever_asks_sees_what_was_done_ahead(tmp_path: Path) -> None:
    database, begun, go_on = tmp_path / "x.db", asyncio.Event(), asyncio.Event()
    async with Embedded(waiting_worker(begun, go_on), database=database) as client:
        await operator_and_worker_have_met(client)
        handle = await client.start("flow", run_id="r")
        await begun.wait()
        assert recorded(database, "r") == {}
        detail = await handle.detail()
        assert [(each.name, each.status) for each in detail.timeline] == [("long", "pending")]
        assert recorded(database, "r") == {0: ("long", "pending", None)}
        go_on.set()
        await handle.result(timeout=PATIENCE)


@pytest.mark.usefixtures("never_by_itself")
async def test_an_operator_that_stops_records_what_was_done_ahead(tmp_path: Path) -> None:
    database, begun, go_on = tmp_path / "x.db", asyncio.Event(), asyncio.Event()
    options = WorkerOptions(grace=timedelta(0))
    worker = waiting_worker(begun, go_on)
    async with Embedded(worker, database=database, options=options) as client:
        await operator_and_worker_have_met(client)
        await client.start("flow", run_id="r")
        await begun.wait()
        assert recorded(database, "r") == {}
    assert recorded(database, "r") == {0: ("long", "pending", None)}


async def test_what_was_done_ahead_is_recorded_soon(tmp_path: Path) -> None:
    database, begun, go_on = tmp_path / "x.db", asyncio.Event(), asyncio.Event()
    async with Embedded(waiting_worker(begun, go_on), database=database) as client:
        handle = await client.start("flow", run_id="r")
        await begun.wait()
        with anyio.fail_after(PATIENCE.total_seconds()):
            while not recorded(database, "r"):  # noqa: ASYNC110
                await anyio.sleep(0.01)
        assert recorded(database, "r") == {0: ("long", "pending", None)}
        go_on.set()
        await handle.result(timeout=PATIENCE)


async def test_from_what_is_recorded_at_any_call_another_process_comes_to_the_same_end(
    tmp_path: Path,
) -> None:
    inputs: dict[str, set[int]] = {}
    on_call: list[Callable[[], None]] = []

    def a_worker() -> Worker:
        worker = Worker()

        @worker.step("double")
        async def double(number: int, ctx: StepContext) -> int:
            for each in on_call:
                each()
            inputs.setdefault(ctx.step_id, set()).add(number)
            return 2 * number

        @worker.workflow("child")
        async def child(ctx: WorkflowContext, number: int) -> int:
            return await ctx.step(double, number)

        @worker.workflow("flow")
        async def flow(ctx: WorkflowContext) -> list[int]:
            one = await ctx.step(double, 1)
            parts = await asyncio.gather(*(ctx.step(double, one + n) for n in range(3)))
            drawn = await ctx.step(double, ctx.side_effect(lambda: len(parts)))
            await asyncio.sleep(0.01)
            below = await ctx.child(child, drawn)
            return [*parts, drawn, below]

        return worker

    database, copies = tmp_path / "first.db", list[Path]()

    def snapshot() -> None:
        copies.append(tmp_path / f"copy-{len(copies)}.db")
        with sqlite3.connect(database) as source, sqlite3.connect(copies[-1]) as target:
            source.backup(target)

    on_call.append(snapshot)
    expected = [4, 6, 8, 6, 12]
    async with Embedded(a_worker(), database=database) as client:
        handle = await client.start("flow", run_id="r")
        assert await handle.result(timeout=PATIENCE) == expected
    on_call.clear()

    assert len(copies) == 6
    for copy in copies:
        with sqlite3.connect(copy) as connection:  # the process that held it is gone
            connection.execute("UPDATE lease SET expires_at = 0")
        connection.close()
        async with Embedded(a_worker(), database=copy) as client:
            assert await client.handle("r").result(timeout=PATIENCE) == expected
    assert {step_id: len(given) for step_id, given in inputs.items()} == dict.fromkeys(inputs, 1)


class Failing(MemoryStore):
    """Refuses one commit; before that, or (`too_late`) although it was carried out."""

    def __init__(self, number: int, *, too_late: bool) -> None:
        super().__init__()
        self._left = number
        self._too_late = too_late

    @property
    def has_failed(self) -> bool:
        return self._left < 0

    async def commit(self, batch: Batch, token: int) -> None:
        self._left -= 1
        if self._left == -1 and not self._too_late:
            raise StoreError("the disk has gone")
        await super().commit(batch, token)
        if self._left == -1:
            raise StoreError("the disk has gone, it seems")


@pytest.mark.parametrize("too_late", [False, True])
@pytest.mark.parametrize("number", range(7))
async def test_a_commit_that_fails_loses_nothing_that_was_done_ahead(
    number: int, too_late: bool
) -> None:
    worker, calls = Worker(), list[int]()

    @worker.step("step")
    async def step(number: int) -> int:
        calls.append(number)
        await asyncio.sleep(0.2 if number == 2 else 0)  # it is recorded by the way
        return number

    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext) -> list[int]:
        first: Sequence[int] = [await ctx.step(step, n) for n in range(3)]
        return [*first, *await asyncio.gather(*(ctx.step(step, n) for n in range(3, 6)))]

    store = Failing(number, too_late=too_late)
    async with in_one_process(worker, store) as (client, transport):
        handle = await client.start(flow)
        assert await handle.result(timeout=PATIENCE) == list(range(6))
    assert store.has_failed
    assert sorted(calls) == list(range(6))
    assert sorted(transport.sent) == sorted(set(transport.sent))


class Recording(MemoryTransport):
    """Keeps the ids of the tasks that were sent."""

    def __init__(self, *, names: Names) -> None:
        super().__init__(names=names)
        self.sent: list[str] = []

    def put(self, queue: str, envelope: Envelope) -> None:
        if envelope.type == MessageType.STEP_TASK:
            self.sent.append(envelope.message_id or "")
        super().put(queue, envelope)


@asynccontextmanager
async def in_one_process(worker: Worker, store: Store) -> AsyncIterator[tuple[Client, Recording]]:
    names = Names()
    async with Recording(names=names) as transport, store:
        operator = OperatorService(
            store, transport, names=names, options=OperatorOptions(tells_events=False)
        )
        service = WorkerService(worker, transport, names=names)
        client = Client(OwnOperatorPort(operator, max_message_bytes=2**20), directory=worker)
        async with asyncio.TaskGroup() as group:
            group.create_task(operator.serve())
            working = group.create_task(service.serve())
            yield client, transport
            service.request_stop()
            await asyncio.wait([working])
            operator.request_stop()


class Breaking(MemoryStore):
    """Breaks over each transaction that would record a call of run `bad`."""

    broken = 0

    async def commit(self, batch: Batch, token: int) -> None:
        if any((each.run_id, each.seq) == ("bad", 0) for each in batch.checkpoints):
            self.broken += 1
            raise ValueError("what no database takes")
        await super().commit(batch, token)


@pytest.mark.parametrize("others", ["at once", "later"])
async def test_what_was_done_ahead_and_cannot_be_recorded_fails_its_own_run_alone(
    others: str,
) -> None:
    begun, go_on, store = asyncio.Event(), asyncio.Event(), Breaking()
    async with in_one_process(waiting_worker(begun, go_on), store) as (client, _):
        await operator_and_worker_have_met(client)
        bad = await client.start("flow", run_id="bad")
        await begun.wait()
        if others == "later":
            await eventually(lambda: store.broken > 0)
        handles = [await client.start("nothing") for _ in range(5)]
        for each in handles:
            await each.result(timeout=PATIENCE)
        go_on.set()
        with pytest.raises(RunFailedError, match="what no database takes"):
            await bad.result(timeout=PATIENCE)
    assert store.broken > 1
