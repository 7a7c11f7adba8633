"""Stopping and starting again at awkward moments: nothing owed is forgotten."""

import asyncio

import pytest
from msgspec import UNSET, Raw

from durable_worker.errors import ConnectionLostError
from durable_worker.operator import work
from durable_worker.operator.service import OperatorService
from durable_worker.protocol.codec import MessageType, decode_task, encode
from durable_worker.protocol.commands import StartChild, StartTimer, WaitSignal, WorkflowDecision
from durable_worker.protocol.names import Names
from durable_worker.protocol.runs import RunQuery, RunStatus
from durable_worker.protocol.tasks import StepTask, WorkflowTask
from durable_worker.stores.base import Batch, Store
from durable_worker.stores.memory import MemoryStore
from durable_worker.transports.base import Delivery, Envelope
from durable_worker.transports.memory import MemoryTransport
from tests.integration.operator.conftest import DurableMemory
from tests.integration.operator.scripted import (
    ScriptedWorker,
    answer,
    call,
    complete,
    json,
    operating,
    outputs,
    proceed,
)
from tests.integration.operator.waiting import eventually

pytestmark = pytest.mark.anyio


class Taken:
    """Deliveries of one queue, to be answered when the test says so."""

    def __init__(self, transport: DurableMemory, names: Names) -> None:
        self._transport = transport
        self._names = names
        self._box: asyncio.Queue[Delivery] = asyncio.Queue()

    async def of(self, token: str) -> "Taken":
        await self._transport.declare([self._names.tasks(token)])
        queue = self._names.tasks(token)
        await self._transport.consume([queue], self._box.put_nowait, prefetch=10)
        return self

    async def next(self) -> tuple[Delivery, StepTask | WorkflowTask]:
        delivery = await asyncio.wait_for(self._box.get(), 10)
        envelope = delivery.envelope
        return delivery, decode_task(envelope.body, message_type=envelope.type)


async def test_a_copy_of_a_turn_that_knows_less_than_its_repetition_loses_no_result(
    names: Names,
) -> None:
    def turn(task: WorkflowTask) -> WorkflowDecision:
        if len(outputs(task)) == 2:
            return complete(task, "both")
        return proceed(task, call(0, "a"), call(1, "b"))

    async with MemoryStore() as store, DurableMemory(names=names) as transport:

        async def decide(delivery: Delivery, task: StepTask | WorkflowTask) -> None:
            assert isinstance(task, WorkflowTask)
            body = encode(turn(task))
            kind = MessageType.WORKFLOW_DECISION
            await transport.send(names.decisions, Envelope(kind, body, task.task_id))
            await delivery.ack()

        async def do(delivery: Delivery, task: StepTask | WorkflowTask) -> None:
            assert isinstance(task, StepTask)
            body = encode(answer(task, 1))
            message_id = delivery.envelope.message_id
            await transport.send(names.results, Envelope("step-result", body, message_id))
            await delivery.ack()

        turns, a, b = [await Taken(transport, names).of(token) for token in ("w", "a", "b")]
        worker = ScriptedWorker(transport, names, workflows={"w": turn}, steps={})
        first = OperatorService(store, transport, names=names)
        serving = asyncio.create_task(first.serve())
        run_id = await first.start("w", UNSET, run_id="r")
        await worker.announce()
        await decide(*await turns.next())
        step_a, step_b = await a.next(), await b.next()
        await do(*step_a)
        early = await turns.next()
        serving.cancel()  # dies before it notes that the turn is sent
        await asyncio.wait([serving])
        await do(*step_b)

        second = OperatorService(store, transport, names=names)
        serving = asyncio.create_task(second.serve())
        await worker.announce()
        late = await turns.next()
        await decide(*early)
        await decide(*late)
        await decide(*await turns.next())
        assert (await second.wait(run_id)).status is RunStatus.COMPLETED
        second.request_stop()
        await serving


async def test_children_that_one_transaction_has_no_room_for_come_with_the_next(
    names: Names, store: Store, transport: DurableMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "MAX_CHANGES", 10)

    def fan(task: WorkflowTask) -> WorkflowDecision:
        if len(task.history) == 40:
            return complete(task, "all")
        return proceed(task, *(StartChild(seq=n, workflow="c") for n in range(40)))

    worker = ScriptedWorker(
        transport, names, workflows={"p": fan, "c": lambda task: complete(task, 1)}, steps={}
    )
    operator = OperatorService(store, transport, names=names)
    serving = asyncio.create_task(operator.serve())
    async with worker.serving():
        await operator.start("p", UNSET, run_id="p")
        ended = await asyncio.wait_for(operator.wait("p"), 20)
    assert ended.status is RunStatus.COMPLETED
    operator.request_stop()
    await serving


async def test_children_put_off_do_not_outlive_the_cancelling_of_their_parent(
    names: Names, store: Store, transport: DurableMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "MAX_CHANGES", 10)
    worker = ScriptedWorker(
        transport,
        names,
        workflows={
            "p": lambda task: proceed(task, *(StartChild(seq=n, workflow="c") for n in range(40))),
            "c": lambda task: proceed(task, WaitSignal(seq=0, signal="never")),
        },
        steps={},
    )
    operator = OperatorService(store, transport, names=names)
    serving = asyncio.create_task(operator.serve())
    async with worker.serving():
        await operator.start("p", UNSET, run_id="p")
        await operator.cancel("p")

        async def all_ended() -> bool:
            if await store.inbox(after=0, limit=1):
                return False
            return all(run.status.is_terminal for run in await store.list_runs(RunQuery(limit=100)))

        await eventually(all_ended)
    operator.request_stop()
    await serving


async def test_a_timer_that_falls_due_while_stopping_does_not_spoil_the_stop(
    names: Names,
) -> None:
    class Away(DurableMemory):
        is_away = False

        async def send(self, queue: str, envelope: Envelope) -> None:
            if self.is_away and "tasks" in queue:
                raise ConnectionLostError("the broker is away")
            await super().send(queue, envelope)

    async with MemoryStore() as store, Away(names=names) as transport:
        worker = ScriptedWorker(
            transport,
            names,
            workflows={
                "w": lambda task: proceed(task, StartTimer(seq=0, ms=500)),
                "v": lambda task: complete(task, 1),
            },
            steps={},
        )
        operator = OperatorService(store, transport, names=names)
        serving = asyncio.create_task(operator.serve())
        async with worker.serving():
            await operator.start("w", UNSET, run_id="w")

            async def is_armed() -> bool:
                return await store.next_timer() is not None

            await eventually(is_armed)
            transport.is_away = True
            await operator.start("v", UNSET, run_id="v")
            operator.request_stop()
            await serving


async def test_a_task_refused_as_too_large_while_stopping_is_refused_again_afterwards(
    names: Names,
) -> None:
    class Slow(DurableMemory):
        async def declare(self, queues: object) -> None:
            await asyncio.sleep(0.05)
            await super().declare(queues)  # type: ignore[arg-type]

    async with MemoryStore() as store, Slow(names=names, max_message_bytes=1_000) as transport:
        worker = ScriptedWorker(
            transport, names, workflows={"w": lambda task: complete(task, 1)}, steps={}
        )
        operator = OperatorService(store, transport, names=names)
        serving = asyncio.create_task(operator.serve())
        async with worker.serving():
            await operator.start("w", json("x" * 950), run_id="r")
            operator.request_stop()
            await serving
            operator = OperatorService(store, transport, names=names)
            serving = asyncio.create_task(operator.serve())
            ended = await asyncio.wait_for(operator.wait("r"), 10)
            assert ended.error is not None
            assert ended.error.code == "payload-too-large"
            operator.request_stop()
            await serving


class Gated(MemoryStore):
    """Commits wait while the gate is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()
        self.is_held = asyncio.Event()

    async def commit(self, batch: Batch, token: int) -> None:
        if not self.gate.is_set():
            self.is_held.set()
            await self.gate.wait()
        await super().commit(batch, token)


async def test_waiting_for_a_run_that_has_ended_returns_also_while_a_late_message_is_applied(
    names: Names,
) -> None:
    async with Gated() as store, MemoryTransport(names=names) as transport:
        worker = ScriptedWorker(
            transport, names, workflows={"w": lambda task: complete(task, 1)}, steps={}
        )
        async with operating(store, transport, names) as operator, worker.serving():
            await operator.start("w", UNSET, run_id="r")
            assert (await operator.wait("r")).status is RunStatus.COMPLETED
            store.gate.clear()
            late = encode(complete(worker.turns[0], 2))
            await transport.send(names.decisions, Envelope(MessageType.WORKFLOW_DECISION, late))
            await store.is_held.wait()
            try:
                ended = await asyncio.wait_for(operator.wait("r"), 10)
            finally:
                store.gate.set()
            assert ended.output == Raw(b"1")
