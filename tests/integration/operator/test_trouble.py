"""A store that refuses, another operator, a process that dies."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
import structlog

from durable_worker.errors import (
    LeaseLostError,
    NoOperatorError,
    StoreFullError,
    StoreUnavailableError,
)
from durable_worker.operator.options import OperatorOptions
from durable_worker.operator.service import OperatorService
from durable_worker.protocol.codec import MessageType, encode
from durable_worker.protocol.commands import WorkflowDecision
from durable_worker.protocol.names import Names
from durable_worker.protocol.payload import plain_json
from durable_worker.protocol.results import StepResult
from durable_worker.protocol.runs import GetRunDetail, RunRequest, RunStatus
from durable_worker.protocol.tasks import StepTask, WorkflowTask
from durable_worker.stores.base import Batch, Lease, Owner
from durable_worker.stores.memory import MemoryStore
from durable_worker.stores.sqlite import SqliteStore
from durable_worker.transports.base import Delivery, Envelope, Subscription
from durable_worker.transports.memory import MemoryTransport
from tests.integration.operator.scripted import (
    ScriptedWorker,
    answer,
    call,
    complete,
    json,
    operating,
    outputs,
    proceed,
    sequence,
)
from tests.integration.operator.waiting import eventually

pytestmark = pytest.mark.anyio


class FullDisk(MemoryStore):
    """Refuses commits while `is_full`; a refused commit changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.is_full = False
        self.refusals = 0

    def fill(self, task: StepTask) -> StepResult:
        """A step that uses up all space the first time: its result cannot be written."""
        self.is_full = self.refusals == 0
        return answer(task, task.seq)

    async def commit(self, batch: Batch, token: int) -> None:
        if self.is_full:
            self.refusals += 1
            raise StoreFullError("the disk is full")
        await super().commit(batch, token)


def echo(task: StepTask) -> StepResult:
    return answer(task, plain_json(task.input))


async def test_inputs_that_met_a_full_disk_are_applied_once_there_is_space(names: Names) -> None:
    store = FullDisk()
    async with MemoryTransport(names=names) as transport:
        worker = ScriptedWorker(
            transport, names, {"seq": sequence("fill", "echo")}, {"fill": store.fill, "echo": echo}
        )
        async with operating(store, transport, names) as operator, worker.serving():
            await operator.start("seq", json(None), run_id="r")
            await eventually(lambda: store.refusals >= 3)
            assert transport.depth(names.results) + transport.depth(names.decisions) > 0
            store.is_full = False
            assert plain_json((await operator.wait("r")).output) == [0, 1]
    assert len(worker.tasks) == 2


async def test_a_disk_that_stays_full_ends_the_service_and_loses_no_message(names: Names) -> None:
    store = FullDisk()
    options = OperatorOptions(store_patience=timedelta(milliseconds=200))
    async with MemoryTransport(names=names) as transport:
        worker = ScriptedWorker(transport, names, {"seq": sequence("fill")}, {"fill": store.fill})
        service = OperatorService(store, transport, names=names, options=options)
        async with worker.serving():
            with structlog.testing.capture_logs() as lines:
                serving = asyncio.ensure_future(service.serve())
                await service.start("seq", json(None), run_id="r")
                with pytest.raises(StoreFullError):
                    await serving
            failures = [line for line in lines if line["event"] == "store_write_failed"]
            assert [line["attempt"] for line in failures] == list(range(1, len(failures) + 1))
            assert transport.depth(names.results) + transport.depth(names.decisions) > 0
            store.is_full = False
            async with operating(store, transport, names) as operator:
                assert (await operator.wait("r")).status is RunStatus.COMPLETED


class StandingStill(MemoryStore):
    """Its first commits take longer than anybody waits, and fail then: as they do for a process
    that was stopped in the middle of one."""

    def __init__(self, *, times: int) -> None:
        super().__init__()
        self.left = times

    async def commit(self, batch: Batch, token: int) -> None:
        if self.left:
            self.left -= 1
            await asyncio.sleep(0.3)
            raise StoreUnavailableError("the database did not answer in time")
        await super().commit(batch, token)


async def test_a_service_that_stood_still_in_a_commit_tries_again_before_it_gives_up(
    names: Names,
) -> None:
    options = OperatorOptions(store_patience=timedelta(milliseconds=200))
    async with MemoryTransport(names=names) as transport:
        worker = ScriptedWorker(transport, names, {"seq": sequence("echo")}, {"echo": echo})
        store = StandingStill(times=1)
        async with (
            operating(store, transport, names, options=options) as operator,
            worker.serving(),
        ):
            await operator.start("seq", json(None), run_id="r")
            assert (await operator.wait("r")).status is RunStatus.COMPLETED
        service = OperatorService(StandingStill(times=2), transport, names=names, options=options)
        serving = asyncio.ensure_future(service.serve())
        starting = asyncio.ensure_future(service.start("seq", json(None), run_id="s"))
        with pytest.raises(StoreUnavailableError):
            await serving
        with pytest.raises(NoOperatorError):
            await starting


async def test_an_operator_that_was_taken_over_stops_with_an_error(
    names: Names, tmp_path: Path
) -> None:
    async with SqliteStore(tmp_path / "db") as store, MemoryTransport(names=names) as transport:
        service = OperatorService(store, transport, names=names)
        serving = asyncio.ensure_future(service.serve())
        await service.start("w", json(None))
        thief = Owner("thief", "elsewhere", "machine-2", 1)
        far_future = 32_503_680_000_000
        assert isinstance(await store.acquire_lease(thief, now=far_future, ttl=1), Lease)
        starting = asyncio.ensure_future(service.start("w", json(None)))
        with pytest.raises(LeaseLostError, match="another operator"):
            await serving
        with pytest.raises(Exception, match="has stopped"):
            await starting


class SlowToStop(MemoryTransport):
    """Still delivers while a consumer is being stopped, as a broker does until it has heard."""

    async def consume(
        self, queues: Sequence[str], handler: Callable[[Delivery], None], *, prefetch: int
    ) -> Subscription:
        return Stopping(self, queues, await super().consume(queues, handler, prefetch=prefetch))


@dataclass
class Stopping:
    transport: SlowToStop
    queues: Sequence[str]
    inner: Subscription

    async def stop(self) -> None:
        request = RunRequest(request_id="q", tenant="default", body=GetRunDetail(run_id="r"))
        late = Envelope(MessageType.RUN_REQUEST, encode(request), request.request_id)
        for queue in self.queues:
            if queue.endswith("run-request"):
                await self.transport.send(queue, late)
                await asyncio.sleep(0.01)
        await self.inner.stop()


async def test_a_request_that_reaches_an_operator_as_it_loses_its_lease_stays_with_the_broker(
    names: Names, tmp_path: Path
) -> None:
    async with SqliteStore(tmp_path / "db") as store, SlowToStop(names=names) as transport:
        service = OperatorService(store, transport, names=names)
        serving = asyncio.ensure_future(service.serve())
        await service.start("w", json(None), run_id="r")
        thief = Owner("thief", "elsewhere", "machine-2", 1)
        assert isinstance(await store.acquire_lease(thief, now=32_503_680_000_000, ttl=1), Lease)
        with pytest.raises(NoOperatorError):
            await service.start("w", json(None))
        with pytest.raises(LeaseLostError):
            await serving
        assert transport.depth(names.run_request) == 1


async def test_a_second_operator_waits_until_the_first_has_ended(
    names: Names, tmp_path: Path
) -> None:
    path = tmp_path / "db"
    async with SqliteStore(path) as store, MemoryTransport(names=names) as transport:
        worker = ScriptedWorker(transport, names, {"w": lambda task: complete(task, 1)})
        async with worker.serving(), SqliteStore(path) as other:
            with structlog.testing.capture_logs() as lines:
                async with operating(store, transport, names) as first:
                    run_id = await first.start("w", json(None))
                    second = OperatorService(other, transport, names=names)
                    serving = asyncio.ensure_future(second.serve())
                    await first.wait(run_id)
                    await eventually(
                        lambda: any(line["event"] == "lease_held_by_another" for line in lines)
                    )
                run = await second.wait(await second.start("w", json(None)))
                assert run.status is RunStatus.COMPLETED
                second.request_stop()
                await serving


async def test_an_operator_that_waits_for_the_lease_can_be_stopped(
    names: Names, tmp_path: Path
) -> None:
    path = tmp_path / "db"
    async with (
        SqliteStore(path) as store,
        SqliteStore(path) as other,
        MemoryTransport(names=names) as transport,
        operating(store, transport, names) as first,
    ):
        await first.start("w", json(None))
        second = OperatorService(other, transport, names=names)
        serving = asyncio.ensure_future(second.serve())
        await asyncio.sleep(0)
        second.request_stop()
        async with asyncio.timeout(5):
            await serving


async def crash(store: MemoryStore) -> None:
    """The operator's process dies: its lease expires instead of being released."""
    holder = store._holder
    assert holder is not None
    store._holder = replace(holder, expires_at=0)


async def test_a_step_that_kills_its_process_every_time_is_given_up_at_last(names: Names) -> None:
    def body(task: WorkflowTask) -> WorkflowDecision:
        if task.history:
            assert task.history[0].error is not None
            return complete(task, task.history[0].error.code)
        return proceed(task, call(0, "deadly"))

    store = MemoryStore()
    options = OperatorOptions(recoveries=2)
    deadly: list[int] = []
    while True:
        # The embedded operator: one process with worker and transport, all gone at once.
        async with MemoryTransport(names=names) as transport:
            reached = asyncio.Event()

            async def die(task: StepTask, reached: asyncio.Event = reached) -> StepResult:
                deadly.append(task.attempt)
                reached.set()
                return await asyncio.get_running_loop().create_future()

            worker = ScriptedWorker(transport, names, {"w": body}, {"deadly": die})
            service = OperatorService(store, transport, names=names, options=options)

            async def live(
                worker: ScriptedWorker = worker, service: OperatorService = service
            ) -> None:
                async with worker.serving():
                    await service.serve()

            living = asyncio.ensure_future(live())
            await service.start("w", json(None), run_id="r")
            ended = asyncio.ensure_future(service.wait("r"))
            dying = asyncio.ensure_future(reached.wait())
            await asyncio.wait({ended, dying}, return_when=asyncio.FIRST_COMPLETED)
            is_over = ended.done()
            held = store._holder
            living.cancel()
            dying.cancel()
            await asyncio.gather(living, ended, dying, return_exceptions=True)
            store._holder = held
            await crash(store)
            if is_over:
                break
    # The first call was not recorded: the turn that had asked for it was sent again.
    assert deadly == [1, 1, 1, 1]
    state = await store.load("r")
    assert state is not None
    assert plain_json(state.run.output) == "poison"


async def test_a_clean_stop_does_not_count_against_a_run(names: Names) -> None:
    store = MemoryStore()
    options = OperatorOptions(recoveries=0)
    for _ in range(3):
        async with MemoryTransport(names=names) as transport:
            worker = ScriptedWorker(transport, names, {"seq": sequence("echo")})
            await transport.declare([names.tasks("echo")])
            async with (
                operating(store, transport, names, options=options) as operator,
                worker.serving(),
            ):
                await operator.start("seq", json(None), run_id="r")
                await eventually(lambda t=transport: t.depth(names.tasks("echo")) == 1)
    async with MemoryTransport(names=names) as transport:
        worker = ScriptedWorker(transport, names, {"seq": sequence("echo")}, {"echo": echo})
        async with operating(store, transport, names) as operator, worker.serving():
            assert (await operator.wait("r")).status is RunStatus.COMPLETED
    assert outputs(worker.turns[0]) == {0: 0}
