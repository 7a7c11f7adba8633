"""The operator's side of the wire, by hand: send tasks, read answers."""

import itertools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream
from msgspec import Raw, json

from durable_worker import Worker
from durable_worker.protocol import codec
from durable_worker.protocol.codec import MessageType
from durable_worker.protocol.commands import WorkflowDecision
from durable_worker.protocol.control import CancelRun, CancelSteps, GivenUp
from durable_worker.protocol.names import Names, routing_token
from durable_worker.protocol.results import StepResult
from durable_worker.protocol.tasks import HistoryEvent, StepTask, WorkflowTask
from durable_worker.transports.base import Delivery, Envelope, Transport
from durable_worker.worker.options import WorkerOptions
from durable_worker.worker.service import WorkerService


class Desk:
    def __init__(self, transport: Transport, names: Names, service: WorkerService) -> None:
        self.transport = transport
        self.names = names
        self.service = service
        self.heartbeats: list[Envelope] = []
        self.control: list[Envelope] = []
        self.workers: list[Envelope] = []
        self._numbers = itertools.count()
        self._results = anyio.create_memory_object_stream[Delivery](1_000)
        self._decisions = anyio.create_memory_object_stream[Delivery](1_000)
        self._dead = anyio.create_memory_object_stream[Delivery](1_000)

    async def open(self) -> None:
        names = self.names
        for queue, stream in (
            (names.results, self._results),
            (names.decisions, self._decisions),
            (names.dead, self._dead),
        ):
            await self.transport.consume([queue], stream[0].send_nowait, prefetch=1_000)
        await self.transport.listen(names.heartbeat, self.heartbeats.append)
        await self.transport.listen(names.control, self.control.append)
        await self.transport.listen(names.workers, self.workers.append)

    def close(self) -> None:
        for send, receive in (self._results, self._decisions, self._dead):
            send.close()
            receive.close()

    # Sending

    async def send_step(
        self,
        name: str,
        value: object = None,
        *,
        run_id: str = "run-1",
        attempt: int = 1,
        seq: int | None = None,
    ) -> StepTask:
        number = next(self._numbers) if seq is None else seq
        task = StepTask(
            run_id=run_id,
            seq=number,
            name=name,
            step_id=f"{run_id}:{number}",
            group=routing_token(name),
            input=Raw(json.encode(value)),
            attempt=attempt,
        )
        await self.send(name, codec.encode(task), MessageType.STEP_TASK)
        return task

    async def send_turn(
        self,
        workflow: str,
        history: Sequence[HistoryEvent] = (),
        *,
        version: str = "1",
        run_id: str = "run-1",
    ) -> WorkflowTask:
        task = WorkflowTask(
            task_id=f"{run_id}#{next(self._numbers)}",
            run_id=run_id,
            workflow=workflow,
            workflow_version=version,
            history=list(history),
            group=routing_token(workflow),
            attempt=1,
        )
        await self.send(workflow, codec.encode(task), MessageType.WORKFLOW_TASK)
        return task

    async def send(
        self, name: str, body: bytes, message_type: str | None, *, protocol: int | None = 1
    ) -> None:
        queue = self.names.tasks(routing_token(name))
        await self.transport.send(queue, Envelope(message_type, body, protocol=protocol))

    async def cancel(self, run_id: str, *, seqs: list[int] | None = None) -> None:
        body = codec.encode(CancelRun(run_id=run_id, seqs=seqs, sender="operator"))
        await self.transport.broadcast(self.names.control, Envelope(MessageType.CONTROL, body))

    async def give_up(self, run_id: str, attempts: Mapping[int, int]) -> None:
        """`attempts`: by seq."""
        steps = [GivenUp(seq=seq, attempt=attempt) for seq, attempt in attempts.items()]
        body = codec.encode(CancelSteps(run_id=run_id, steps=steps, sender="operator"))
        await self.transport.broadcast(self.names.control, Envelope(MessageType.CONTROL, body))

    # Reading

    async def result(self) -> StepResult:
        return codec.STEP_RESULT.decode((await _next(self._results[1])).envelope.body)

    async def decision(self) -> WorkflowDecision:
        return codec.WORKFLOW_DECISION.decode((await _next(self._decisions[1])).envelope.body)

    async def dead(self) -> Envelope:
        return (await _next(self._dead[1])).envelope

    def unread_results(self) -> int:
        return self._results[1].statistics().current_buffer_used


async def eventually(condition: Callable[[], object]) -> None:
    with anyio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - what is awaited has no event of its own
            await anyio.sleep(0.005)


async def _next(stream: MemoryObjectReceiveStream[Delivery]) -> Delivery:
    with anyio.fail_after(10):
        delivery = await stream.receive()
        await delivery.ack()
        return delivery


@asynccontextmanager
async def serving(
    worker: Worker, transport: Transport, names: Names, **options: Any
) -> AsyncIterator[Desk]:
    """A served worker and its counterpart; leaving drains the worker."""
    async with anyio.create_task_group() as group:
        async with desk_for(worker, transport, names, group, **options) as desk:
            yield desk
        group.cancel_scope.cancel()


@asynccontextmanager
async def desk_for(
    worker: Worker, transport: Transport, names: Names, group: TaskGroup, **options: Any
) -> AsyncIterator[Desk]:
    service = WorkerService(worker, transport, names=names, options=WorkerOptions(**options))
    desk = Desk(transport, names, service)
    ended = anyio.Event()

    async def serve() -> None:
        await service.serve()
        ended.set()

    try:
        await desk.open()
        queues = [names.tasks(token) for token in service.tokens]
        await transport.declare(queues)
        group.start_soon(serve)
        yield desk
        service.request_stop()
        with anyio.fail_after(10):
            await ended.wait()
    finally:
        desk.close()
