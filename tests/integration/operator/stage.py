"""A stage on which messages die: step tasks are taken by hand, clients ask the operator."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from durable_worker.client import Client, broker_client
from durable_worker.operator.options import OperatorOptions
from durable_worker.protocol.codec import STEP_TASK, MessageType, encode
from durable_worker.protocol.commands import WorkflowDecision
from durable_worker.protocol.letters import DeadLetterRecord
from durable_worker.protocol.names import Names
from durable_worker.protocol.payload import plain_json
from durable_worker.protocol.runs import RunStatus
from durable_worker.protocol.tasks import StepTask, WorkflowTask
from durable_worker.stores.base import Store
from durable_worker.stores.sqlite import SqliteStore
from durable_worker.transports.base import (
    ERROR_HEADER,
    Delivery,
    Envelope,
)
from durable_worker.transports.memory import MemoryTransport
from tests.integration.operator.scripted import (
    ScriptedWorker,
    answer,
    call,
    complete,
    fail,
    operating,
    outputs,
    proceed,
)
from tests.integration.operator.waiting import eventually

BURIED = {ERROR_HEADER: "nobody could read it"}
SOON = timedelta(seconds=10)


def charging(task: WorkflowTask) -> WorkflowDecision:
    """A body that calls one step, and fails if that does."""
    if not task.history:
        return proceed(task, call(0, "charge", 5))
    error = task.history[0].error
    return complete(task, outputs(task)[0]) if error is None else fail(task, error.message)


def forgiving(task: WorkflowTask) -> WorkflowDecision:
    """A body that catches the failure, and does something else."""
    if len(task.history) == 2:
        return complete(task, "refunded")
    if not task.history:
        return proceed(task, call(0, "charge", 5))
    return proceed(task, call(1, "refund"))


class Stage:
    """An operator whose step tasks a test takes by hand, and clients that ask it both ways."""

    def __init__(self, transport: MemoryTransport, names: Names, store: Store) -> None:
        self.transport, self.names, self.store = transport, names, store
        self.tasks: asyncio.Queue[Delivery] = asyncio.Queue()
        self.worker = ScriptedWorker(
            transport,
            names,
            {"charging": charging, "forgiving": forgiving},
            {"refund": lambda task: answer(task, "refunded")},
        )
        self.client: Client = broker_client(transport, names=names)

    async def bury(self, delivery: Delivery) -> None:
        """As a worker does with what it cannot read."""
        envelope = delivery.envelope
        dead = Envelope(envelope.type, envelope.body, envelope.message_id, headers=BURIED)
        await self.transport.send(self.names.dead, dead)
        await delivery.ack()

    async def answered(self, delivery: Delivery, output: object) -> None:
        await self.transport.send(self.names.results, result_of(delivery, output))
        await delivery.ack()

    async def letters(self, *, count: int = 1) -> list[DeadLetterRecord]:
        """Once there are so many."""
        found: list[DeadLetterRecord] = []

        async def are_there() -> bool:
            found[:] = await self.client.dead_letters()
            return len(found) == count

        await eventually(are_there)
        return found

    async def failed(self, run_id: str) -> None:
        run = await self.client.handle(run_id).wait(timeout=SOON)
        assert run.status in (RunStatus.FAILED, RunStatus.DEAD)

    async def output(self, run_id: str) -> object:
        async def is_over() -> bool:
            return (await self.client.detail(run_id)).run.status is RunStatus.COMPLETED

        await eventually(is_over)
        return plain_json((await self.client.detail(run_id)).run.output)


def beside_operator(store: Store) -> Store:
    """As another process opens it."""
    return SqliteStore(store.path) if isinstance(store, SqliteStore) else store


def result_of(delivery: Delivery, output: object) -> Envelope:
    task: StepTask = STEP_TASK.decode(delivery.envelope.body)
    message_id = delivery.envelope.message_id
    return Envelope(MessageType.STEP_RESULT, encode(answer(task, output)), message_id)


@asynccontextmanager
async def playing(
    store: Store,
    transport: MemoryTransport,
    names: Names,
    *,
    options: OperatorOptions | None = None,
) -> AsyncIterator[Stage]:
    stage = Stage(transport, names, store)
    async with (
        operating(store, transport, names, options=options),
        stage.worker.serving(),
        stage.client,
    ):
        taking = await transport.consume(
            [names.tasks("charge")], stage.tasks.put_nowait, prefetch=10
        )
        try:
            yield stage
        finally:
            await taking.stop()
