"""Long runs whose turns tell their worker only what is new, with real operators and workers."""

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from durable_worker import Worker, WorkflowContext
from durable_worker.operator import intake
from durable_worker.protocol.growing import TurnReader
from durable_worker.protocol.keys import Keyring
from durable_worker.protocol.names import Names
from durable_worker.protocol.payload import plain_json
from durable_worker.protocol.runs import RunStatus
from durable_worker.stores.memory import MemoryStore
from durable_worker.transports.base import Transport
from durable_worker.transports.memory import MemoryTransport
from durable_worker.transports.rabbitmq import RabbitTransport
from durable_worker.transports.signing import SigningTransport
from durable_worker.worker.options import WorkerOptions
from durable_worker.worker.service import WorkerService
from tests.integration.operator.scripted import json, operating

STEPS = 40
RING = Keyring({"k1": bytes(range(32))})
PATIENCE = timedelta(seconds=30)


def counting() -> Worker:
    worker = Worker()

    @worker.step("one")
    async def one(number: int) -> int:
        await asyncio.sleep(0.002)
        return number

    @worker.workflow("count", version="1")
    async def count(ctx: WorkflowContext, steps: int) -> int:
        return sum([await ctx.step(one, number) for number in range(steps)])

    @worker.workflow("fan", version="1")
    async def fan(ctx: WorkflowContext, steps: int) -> int:
        return sum(await asyncio.gather(*(ctx.step(one, number) for number in range(steps))))

    return worker


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many additions a worker could complete, and how many came back to the operator."""
    seen = Counter[str]()
    completed, returned = TurnReader._completed, intake._returned

    def complete(self: TurnReader, task, body):  # type: ignore[no-untyped-def]
        whole = completed(self, task, body)
        seen["completed" if whole.since is None else "not kept"] += 1
        return whole

    def give_back(envelope):  # type: ignore[no-untyped-def]
        row = returned(envelope)
        seen["returned"] += row is not None
        return row

    monkeypatch.setattr(TurnReader, "_completed", complete)
    monkeypatch.setattr(intake, "_returned", give_back)
    return seen


@pytest.fixture(
    params=[
        "memory",
        "signed memory",
        pytest.param("rabbitmq", marks=pytest.mark.broker),
        pytest.param("signed rabbitmq", marks=pytest.mark.broker),
        pytest.param("rabbitmq over aio-pika", marks=pytest.mark.broker),
    ]
)
def new_transport(request: pytest.FixtureRequest, prefix: str) -> Callable[[], Transport]:
    kind: str = request.param
    names = Names(prefix)
    memory = MemoryTransport(names=names)

    def make() -> Transport:
        if "memory" in kind:
            return memory
        url: str = request.getfixturevalue("broker_url")
        return RabbitTransport(url, names=names, lane="aio-pika" if "aio-pika" in kind else "fast")

    return (lambda: SigningTransport(make(), RING, names=names)) if "signed" in kind else make


@asynccontextmanager
async def serving(transport: Transport, names: Names, **options: object) -> AsyncIterator[None]:
    """A worker on a transport of its own, drained in the end."""
    settings = WorkerOptions(deltas_from_bytes=0, **options)  # type: ignore[arg-type]
    async with transport, asyncio.TaskGroup() as group:
        service = WorkerService(counting(), transport, names=names, options=settings)
        group.create_task(service.serve())
        yield
        service.request_stop()


async def test_a_long_run_is_told_only_what_is_new(
    new_transport: Callable[[], Transport], prefix: str, seen: Counter[str]
) -> None:
    names = Names(prefix)
    async with (
        new_transport() as transport,
        operating(MemoryStore(), transport, names) as operator,
        serving(new_transport(), names),
    ):
        run = await operator.wait(await operator.start("count", json(STEPS)))
    assert (run.status, plain_json(run.output)) == (RunStatus.COMPLETED, sum(range(STEPS)))
    # The first turns come whole, until the worker's own queue is there.
    assert seen["completed"] > STEPS / 2
    assert seen["not kept"] == 0


async def test_steps_side_by_side_are_told_as_they_come(
    new_transport: Callable[[], Transport], prefix: str, seen: Counter[str]
) -> None:
    names = Names(prefix)
    async with (
        new_transport() as transport,
        operating(MemoryStore(), transport, names) as operator,
        serving(new_transport(), names, concurrency=3),
    ):
        run_id = await operator.start("fan", json(STEPS))
        runs = [
            await operator.wait(each) for each in (run_id, await operator.start("fan", json(9)))
        ]
    assert [plain_json(run.output) for run in runs] == [sum(range(STEPS)), sum(range(9))]
    assert seen["completed"] > 5


async def test_a_worker_that_cannot_keep_its_runs_gets_their_whole_histories(
    new_transport: Callable[[], Transport], prefix: str, seen: Counter[str]
) -> None:
    names = Names(prefix)
    async with (
        new_transport() as transport,
        operating(MemoryStore(), transport, names) as operator,
        serving(new_transport(), names, kept_runs=1),
    ):
        ids = [await operator.start("count", json(STEPS)) for _ in range(3)]
        runs = await asyncio.gather(*map(operator.wait, ids))
    assert {plain_json(run.output) for run in runs} == {sum(range(STEPS))}
    assert seen["not kept"] > 0
    assert seen["returned"] == seen["not kept"]


async def test_another_worker_gets_the_whole_history_once_the_first_has_stopped(
    new_transport: Callable[[], Transport], prefix: str, seen: Counter[str]
) -> None:
    names = Names(prefix)
    async with (
        new_transport() as transport,
        operating(MemoryStore(), transport, names) as operator,
        AsyncExitStack() as first,
    ):
        await first.enter_async_context(serving(new_transport(), names))
        run_id = await operator.start("count", json(10 * STEPS))
        async with asyncio.timeout(PATIENCE.total_seconds()):
            while seen["completed"] < STEPS:  # noqa: ASYNC110 - counted where nothing waits
                await asyncio.sleep(0.005)
        await first.aclose()
        completed = seen["completed"]
        async with serving(new_transport(), names):
            run = await operator.wait(run_id)
    assert plain_json(run.output) == sum(range(10 * STEPS))
    assert seen["completed"] > completed


_DYING = """
import asyncio, os, signal, sys
from durable_worker import Worker, WorkflowContext
from durable_worker.protocol.names import Names
from durable_worker.transports.rabbitmq import RabbitTransport
from durable_worker.worker.options import WorkerOptions
from durable_worker.worker.service import WorkerService

url, prefix, where = sys.argv[1:]
worker = Worker()

def die(number, at):
    if number == 30 and at == where:
        os.kill(os.getpid(), signal.SIGKILL)

@worker.step("one")
async def one(number: int) -> int:
    die(number, "step")
    return number

@worker.workflow("count", version="1")
async def count(ctx: WorkflowContext, steps: int) -> int:
    total = 0
    for number in range(steps):
        die(number, "body")
        total += await ctx.step(one, number)
    return total

async def main():
    names = Names(prefix)
    options = WorkerOptions(deltas_from_bytes=0)
    async with RabbitTransport(url, names=names) as transport:
        await WorkerService(worker, transport, names=names, options=options).serve()

asyncio.run(main())
"""


@pytest.mark.broker
@pytest.mark.parametrize("where", ["body", "step"])
async def test_a_turn_that_a_dead_worker_has_or_would_get_goes_whole_to_another(
    where: str, broker_url: str, prefix: str, seen: Counter[str], tmp_path: Path
) -> None:
    names = Names(prefix)
    async with (
        RabbitTransport(broker_url, names=names) as transport,
        operating(MemoryStore(), transport, names) as operator,
    ):
        dying = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _DYING, broker_url, prefix, where
        )
        run_id = await operator.start("count", json(STEPS))
        async with asyncio.timeout(PATIENCE.total_seconds()):
            assert await dying.wait() == -9
        async with serving(RabbitTransport(broker_url, names=names), names):
            run = await operator.wait(run_id)
    assert plain_json(run.output) == sum(range(STEPS))
    assert seen["returned"] == 1
