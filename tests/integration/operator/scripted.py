"""The other side of the wire: a worker whose answers a test writes down."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import msgspec
from msgspec import UNSET, Raw

from durable_worker.clock import Clock
from durable_worker.operator.options import OperatorOptions
from durable_worker.operator.service import OperatorService
from durable_worker.protocol.codec import CONTROL, MessageType, decode_task, encode
from durable_worker.protocol.commands import (
    AnyCommand,
    DecisionStatus,
    RetryOptions,
    ScheduleStep,
    WorkflowDecision,
)
from durable_worker.protocol.control import AnyControl, CancelRun
from durable_worker.protocol.descriptor import (
    Lifecycle,
    Registration,
    Runtime,
    Sdk,
    WorkerAnnouncement,
    WorkerBeat,
    WorkerDescriptor,
)
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.names import Names, routing_token
from durable_worker.protocol.results import ResultStatus, StepResult
from durable_worker.protocol.tasks import StepTask, WorkflowTask
from durable_worker.stores.base import Store
from durable_worker.transports.base import Delivery, Envelope, Subscription, Transport
from durable_worker.transports.memory import MemoryTransport
from tests.integration.operator.waiting import eventually

Turn = Callable[[WorkflowTask], WorkflowDecision]
Step = Callable[[StepTask], StepResult | Awaitable[StepResult]]


def json(value: object) -> Raw:
    return Raw(msgspec.json.encode(value))


def proceed(task: WorkflowTask, *commands: AnyCommand) -> WorkflowDecision:
    return WorkflowDecision(
        task_id=task.task_id,
        run_id=task.run_id,
        status=DecisionStatus.CONTINUE,
        commands=list(commands),
    )


def complete(task: WorkflowTask, output: object, *commands: AnyCommand) -> WorkflowDecision:
    return WorkflowDecision(
        task_id=task.task_id,
        run_id=task.run_id,
        status=DecisionStatus.COMPLETED,
        commands=list(commands),
        output=json(output),
    )


def fail(task: WorkflowTask, message: str) -> WorkflowDecision:
    return WorkflowDecision(
        task_id=task.task_id,
        run_id=task.run_id,
        status=DecisionStatus.FAILED,
        commands=[],
        error=Failure(message=message),
    )


def call(seq: int, name: str, value: object = None, *, retry: RetryOptions | None = None) -> Any:
    return ScheduleStep(seq=seq, name=name, group="default", input=json(value), retry=retry)


def answer(task: StepTask, output: object = None) -> StepResult:
    return StepResult(
        run_id=task.run_id,
        seq=task.seq,
        step_id=task.step_id,
        status=ResultStatus.COMPLETED,
        output=UNSET if output is None else json(output),
    )


def refuse(task: StepTask, message: str, *, code: str | None = None) -> StepResult:
    return StepResult(
        run_id=task.run_id,
        seq=task.seq,
        step_id=task.step_id,
        status=ResultStatus.FAILED,
        error=Failure(message=message, code=code),
    )


def outputs(task: WorkflowTask) -> dict[int, Any]:
    return {
        each.seq: None if isinstance(each.output, type(UNSET)) else msgspec.json.decode(each.output)
        for each in task.history
    }


def sequence(*names: str) -> Turn:
    """A workflow that calls these steps one after the other and returns their outputs."""

    def turn(task: WorkflowTask) -> WorkflowDecision:
        done = outputs(task)
        if len(done) == len(names):
            return complete(task, [done[seq] for seq in range(len(names))])
        return proceed(task, call(len(done), names[len(done)], len(done)))

    return turn


@dataclass
class ScriptedWorker:
    """Answers tasks by its scripts; keeps what it has seen."""

    transport: Transport
    names: Names
    workflows: Mapping[str, Turn] = field(default_factory=dict)
    steps: Mapping[str, Step] = field(default_factory=dict)
    versions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    turns: list[WorkflowTask] = field(default_factory=list)
    tasks: list[StepTask] = field(default_factory=list)
    controls: list[AnyControl] = field(default_factory=list)
    instance_id: str = field(default_factory=lambda: f"scripted-{uuid4().hex[:6]}")

    @property
    def tokens(self) -> list[str]:
        return [routing_token(name) for name in (*self.workflows, *self.steps)]

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["ScriptedWorker"]:
        async with asyncio.TaskGroup() as group:
            self._group = group
            queues = [self.names.tasks(token) for token in self.tokens]
            await self.transport.declare(
                [self.names.results, self.names.decisions, self.names.dead, *queues]
            )
            subscriptions: list[Subscription] = [
                await self.transport.listen(self.names.control, self._on_control),
                await self.transport.listen(self.names.workers, self._on_workers),
                await self.transport.consume(queues, self._on_task, prefetch=100),
            ]
            await self.announce()
            try:
                yield self
            finally:
                for each in subscriptions:
                    await each.stop()

    async def announce(self) -> None:
        registrations = [
            Registration(name=name, version=version)
            for name, versions in self.versions.items()
            for version in versions
        ]
        descriptor = WorkerDescriptor(
            instance_id=self.instance_id,
            runtime=Runtime.PYTHON,
            sdk=Sdk(name="scripted", version="0"),
            workflows=list(self.workflows),
            steps=list(self.steps),
            registrations=registrations or None,
            started_at=0,
        )
        message = WorkerAnnouncement(groups=self.tokens, descriptor=descriptor)
        await self.transport.broadcast(
            self.names.workers, Envelope(MessageType.WORKER_DESCRIPTOR, encode(message))
        )

    async def beat(self, lifecycle: Lifecycle = Lifecycle.UP) -> None:
        message = WorkerBeat(
            instance_id=self.instance_id, groups=self.tokens, ts=0, lifecycle=lifecycle
        )
        await self.transport.broadcast(
            self.names.workers, Envelope(MessageType.WORKER_BEAT, encode(message))
        )

    @property
    def cancelled(self) -> set[str]:
        return {each.run_id for each in self.controls if isinstance(each, CancelRun)}

    def _on_control(self, envelope: Envelope) -> None:
        self.controls.append(CONTROL.decode(envelope.body))

    def _on_workers(self, envelope: Envelope) -> None:
        if envelope.type == MessageType.WHO:
            self._group.create_task(self.announce())

    def _on_task(self, delivery: Delivery) -> None:
        self._group.create_task(self._work(delivery))

    async def _work(self, delivery: Delivery) -> None:
        envelope = delivery.envelope
        task = decode_task(envelope.body, message_type=envelope.type)
        if isinstance(task, WorkflowTask):
            self.turns.append(task)
            decision = self.workflows[task.workflow](task)
            reply = Envelope(
                MessageType.WORKFLOW_DECISION, encode(decision), message_id=task.task_id
            )
            await self.transport.send(self.names.decisions, reply)
        else:
            self.tasks.append(task)
            result = self.steps[task.name](task)
            if inspect.isawaitable(result):
                result = await result
            reply = Envelope(
                MessageType.STEP_RESULT, encode(result), message_id=envelope.message_id
            )
            await self.transport.send(self.names.results, reply)
        await delivery.ack()


@asynccontextmanager
async def operating(
    store: Store,
    transport: Transport,
    names: Names,
    *,
    options: OperatorOptions | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[OperatorService]:
    """An operator that serves within the block and has stopped cleanly after it."""
    service = OperatorService(store, transport, names=names, options=options, clock=clock)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(service.serve())
        try:
            yield service
        finally:
            service.request_stop()


async def announced_until_sent(worker: ScriptedWorker, transport: MemoryTransport) -> None:
    """Announce a worker that takes nothing, until a turn lies on its queue."""

    async def is_sent() -> bool:
        await worker.announce()
        return transport.depth(worker.names.tasks(worker.tokens[0])) == 1

    await eventually(is_sent)
