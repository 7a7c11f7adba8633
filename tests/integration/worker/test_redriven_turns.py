"""A body that has seen a failure, kept in a worker, when that failure is taken back."""

import asyncio

import pytest

from durable_worker import Worker, WorkflowContext
from durable_worker.client import broker_client
from durable_worker.protocol.codec import STEP_TASK, MessageType, encode
from durable_worker.protocol.names import Names
from durable_worker.protocol.payload import plain_json
from durable_worker.protocol.runs import RunStatus
from durable_worker.stores.memory import MemoryStore
from durable_worker.transports.base import ERROR_HEADER, Delivery, Envelope
from durable_worker.transports.memory import MemoryTransport
from durable_worker.worker.options import WorkerOptions
from durable_worker.worker.service import WorkerService
from tests.integration.operator.scripted import answer, operating
from tests.integration.operator.waiting import eventually

pytestmark = pytest.mark.anyio

NAMES = Names()


@pytest.mark.parametrize("kept", [0, 10])
async def test_a_kept_body_that_has_seen_the_failure_begins_anew(kept: int) -> None:
    worker = Worker()
    begun: list[str] = []

    @worker.workflow("both")
    async def both(ctx: WorkflowContext) -> list[str]:
        begun.append(ctx.run_id)
        outcomes = await asyncio.gather(
            ctx.step("a", returns=str), ctx.step("b", returns=str), return_exceptions=True
        )
        return [each if isinstance(each, str) else "failed" for each in outcomes]

    async with MemoryTransport(names=NAMES) as transport, MemoryStore() as store:
        tasks: dict[str, asyncio.Queue[Delivery]] = {name: asyncio.Queue() for name in "ab"}
        for name, queue in tasks.items():
            await transport.consume([NAMES.tasks(name)], queue.put_nowait, prefetch=9)

        async def answered(name: str, output: str) -> None:
            envelope = (await tasks[name].get()).envelope
            result = answer(STEP_TASK.decode(envelope.body), output)
            message = Envelope(MessageType.STEP_RESULT, encode(result), envelope.message_id)
            await transport.send(NAMES.results, message)

        options = WorkerOptions(kept_runs=kept)
        service = WorkerService(worker, transport, names=NAMES, options=options)
        client = broker_client(transport, names=NAMES)
        async with operating(store, transport, NAMES), client, asyncio.TaskGroup() as group:
            group.create_task(service.serve())
            handle = await client.start("both", run_id="r")
            poisoned = (await tasks["a"].get()).envelope
            dead = Envelope(
                poisoned.type, poisoned.body, poisoned.message_id, headers={ERROR_HEADER: "no"}
            )
            await transport.send(NAMES.dead, dead)

            async def has_seen_the_failure() -> bool:
                detail = await client.detail("r")
                first = next((each for each in detail.timeline if each.seq == 0), None)
                is_failed = first is not None and first.status == "failed"
                return is_failed and detail.run.status is RunStatus.SUSPENDED

            await eventually(has_seen_the_failure)
            seen = len(begun)
            (letter,) = await client.dead_letters()
            await client.redrive(letter.id)
            await eventually(lambda: len(begun) > seen)
            await answered("b", "B")
            await answered("a", "A")
            run = await handle.wait()
            service.request_stop()
    assert plain_json(run.output) == ["A", "B"]
