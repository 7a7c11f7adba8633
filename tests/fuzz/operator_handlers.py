"""A serving operator gets a message that may be anything, and goes on serving."""

import asyncio
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from msgspec import Raw

from durable_worker.operator.options import OperatorOptions
from durable_worker.operator.service import OperatorService
from durable_worker.protocol.codec import MessageType, encode
from durable_worker.protocol.commands import (
    DecisionStatus,
    ScheduleStep,
    StartChild,
    StartTimer,
    WaitSignal,
    WorkflowDecision,
)
from durable_worker.protocol.descriptor import (
    Runtime,
    Sdk,
    WorkerAnnouncement,
    WorkerDescriptor,
)
from durable_worker.protocol.names import Names, routing_token
from durable_worker.protocol.runs import GetRunDetail, RunRequest, StartRun
from durable_worker.stores.base import Store
from durable_worker.stores.memory import MemoryStore
from durable_worker.stores.sqlite import SqliteStore
from durable_worker.transports.base import (
    DEATH_HEADER,
    DELIVERY_LIMIT_REASON,
    RESENT_HEADER,
    Delivery,
    Envelope,
)
from durable_worker.transports.memory import MemoryTransport
from tests.conformance.protocol.corpus import MESSAGES
from tests.fuzz.houses import House
from tests.fuzz.seeds import CALL, RUN, WORKFLOW

NAMES = Names()
_QUEUES = (
    (NAMES.results, MessageType.STEP_RESULT),
    (NAMES.decisions, MessageType.WORKFLOW_DECISION),
    (NAMES.step_events, MessageType.STEP_EVENT),
    (NAMES.start_run, MessageType.START_RUN),
    (NAMES.run_request, MessageType.RUN_REQUEST),
    (NAMES.dead, MessageType.STEP_RESULT),
)
_BROADCASTS = {
    "heartbeat": NAMES.heartbeat,
    "worker-beat": NAMES.workers,
    "worker-descriptor": NAMES.workers,
    "who": NAMES.workers,
}
_WAYS: tuple[tuple[int | None, str | None, dict[str, str]], ...] = (
    (1, f"{RUN}:0:1", {}),
    (None, None, {}),
    (9, "m" * 255, {}),
    (1, "m", {DEATH_HEADER: DELIVERY_LIMIT_REASON, RESENT_HEADER: "9" * 30}),
    (1, f"{RUN}#2", {"x": "y" * 200_000}),
    (1, f"{RUN}:0:9999999999", {DEATH_HEADER: "expired", RESENT_HEADER: "-1"}),
)
MOST_INPUTS = 300
"""Of one operator, before it gives way to a new one: its runs become many."""


class OperatorHouse(House):
    """An operator with one run that waits for a step, a signal, a timer and a child."""

    def __init__(self, *, is_on_disk: bool = False) -> None:
        self._is_on_disk = is_on_disk
        self.inputs = 0
        super().__init__()

    async def live(self) -> None:
        async with AsyncExitStack() as stack:
            self.transport = await stack.enter_async_context(
                MemoryTransport(names=NAMES, max_message_bytes=2**40)
            )
            self.store = await stack.enter_async_context(self._store(stack))
            self.replies: list[Envelope] = []
            await self.transport.listen(NAMES.run_reply, self.replies.append)
            tokens = [routing_token(name) for name in (CALL, WORKFLOW, "child")]
            tasks = [NAMES.tasks(token) for token in tokens]
            await self.transport.consume(tasks, self._ack, prefetch=1_000)
            self.service = OperatorService(
                self.store, self.transport, names=NAMES, options=OperatorOptions()
            )
            serving = asyncio.create_task(self.service.serve())
            await self.consumed(NAMES.dead)
            await self._with_a_run()
            self.is_open.set()
            await self.until_closed(serving)
            self.service.request_stop()
            await serving

    def _store(self, stack: AsyncExitStack) -> Store:
        if not self._is_on_disk:
            return MemoryStore()
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        return SqliteStore(Path(folder) / "db")

    def _ack(self, delivery: Delivery) -> None:
        self.start(delivery.ack())

    async def _with_a_run(self) -> None:
        descriptor = WorkerDescriptor(
            instance_id="w",
            runtime=Runtime.NODE,
            sdk=Sdk(name="s", version="1"),
            workflows=[WORKFLOW, "child"],
            steps=[CALL],
            started_at=0,
        )
        announced = encode(WorkerAnnouncement(groups=[WORKFLOW, CALL], descriptor=descriptor))
        await self.transport.broadcast(
            NAMES.workers, Envelope(MessageType.WORKER_DESCRIPTOR, announced)
        )
        await self.service.start(WORKFLOW, Raw(b"1"), run_id=RUN)
        commands = [
            ScheduleStep(seq=0, name=CALL, group="default"),
            WaitSignal(seq=1, signal="s"),
            StartChild(seq=2, workflow="child"),
            StartTimer(seq=3, ms=3_600_000),
        ]
        decision = WorkflowDecision(
            task_id=f"{RUN}#1",
            run_id=RUN,
            status=DecisionStatus.CONTINUE,
            commands=list(commands),
        )
        # So that there is a turn to answer, a signal has come by then.
        await self.transport.send(
            NAMES.decisions, Envelope(MessageType.WORKFLOW_DECISION, encode(decision), f"{RUN}#1")
        )
        await self.service.signal("s", Raw(b"1"))

    async def receive(self, data: bytes) -> None:
        self.inputs += 1
        place, way, body = data[0], data[1], data[2:]
        protocol, message_id, headers = _WAYS[way % len(_WAYS)]
        if place >= len(_QUEUES):
            kind = MESSAGES[(place - len(_QUEUES)) % len(MESSAGES)]
            exchange = _BROADCASTS.get(kind, NAMES.control)
            await self.transport.broadcast(exchange, Envelope(kind, body, message_id))
        else:
            queue, kind = _QUEUES[place]
            stated = kind if way < 200 else (*MESSAGES, "", None)[way % (len(MESSAGES) + 2)]
            await self._message(queue, Envelope(stated, body, message_id, protocol, headers))
        await self._serves_a_good_one()

    async def _message(self, queue: str, envelope: Envelope) -> None:
        before = await self.store.dead_letters(limit=10_000)
        await self.transport.send(queue, envelope)
        await self.nothing_left(queue, NAMES.dead)
        known = {each.id for each in before}
        after = await self.store.dead_letters(limit=10_000)
        new = [each for each in after if each.id not in known]
        assert len(new) <= 1
        for letter in new:
            assert letter.body == envelope.body
            assert letter.type == envelope.type
            assert 0 < len(letter.reason) < 2_000

    async def _serves_a_good_one(self) -> None:
        """A new run can be started, and be asked for."""
        self.replies.clear()
        run_id, asked = f"good-{self.inputs}", f"ask-{self.inputs}"
        start = encode(StartRun(tenant="good", workflow=WORKFLOW, run_id=run_id))
        await self.transport.send(NAMES.start_run, Envelope(MessageType.START_RUN, start, run_id))
        await self.nothing_left(NAMES.start_run)
        request = encode(
            RunRequest(request_id=asked, tenant="good", body=GetRunDetail(run_id=run_id))
        )
        await self.transport.send(
            NAMES.run_request, Envelope(MessageType.RUN_REQUEST, request, asked)
        )
        await self.until(lambda: any(each.message_id == asked for each in self.replies))
        (reply,) = [each for each in self.replies if each.message_id == asked]
        assert b'"ok":true' in reply.body, reply.body


_houses: dict[bool, OperatorHouse] = {}


def handle_as_operator(data: bytes) -> None:
    """A byte for the queue or the broadcast, one for what surrounds the body, then the body."""
    _give(data, is_on_disk=False)


def handle_as_operator_on_disk(data: bytes) -> None:
    _give(data, is_on_disk=True)


def _give(data: bytes, *, is_on_disk: bool) -> None:
    house = _houses.get(is_on_disk)
    if house is not None and house.inputs >= MOST_INPUTS:
        house.close()
        house = None
    if house is None:
        house = _houses[is_on_disk] = OperatorHouse(is_on_disk=is_on_disk)
    house.give(data.ljust(2, b"\0"))


def close() -> None:
    while _houses:
        _houses.popitem()[1].close()
