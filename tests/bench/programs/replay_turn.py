"""CPU microseconds per event of one turn over a long history: from the message to the decision, as
a worker takes it, on a transport that costs next to nothing. No body is kept from turn to turn."""

import asyncio
import json
import sys
import time

import msgspec

from durable_worker import Worker, WorkflowContext
from durable_worker.protocol import codec
from durable_worker.protocol.commands import DecisionStatus
from durable_worker.protocol.names import Names
from durable_worker.transports.base import Delivery, Envelope
from durable_worker.transports.memory import MemoryTransport
from durable_worker.worker.determinism.calls import FIRST_TURNS
from durable_worker.worker.options import WorkerOptions
from durable_worker.worker.service import WorkerService
from tests.bench.programs import quiet  # noqa: F401

names = Names()
worker = Worker()


@worker.step("step")
async def step(number: int) -> int:
    return number


@worker.workflow("sequence")
async def sequence(ctx: WorkflowContext, steps: int) -> int:
    total = 0
    for number in range(steps):
        total += await ctx.step(step, number)
    return total


def turn_over(steps: int, run: str) -> Envelope:
    """As an operator encodes it, in this order."""
    history = [
        {"seq": number, "kind": "call", "name": "step", "output": number} for number in range(steps)
    ]
    task = {
        "taskId": f"{run}:last",
        "runId": run,
        "workflow": "sequence",
        "workflowVersion": "1",
        "input": steps,
        "history": history,
        "group": "sequence",
        "attempt": 1,
    }
    body = json.dumps(task, separators=(",", ":")).encode()
    return Envelope("workflow-task", body, f"{run}:last")


async def main(steps: int, rounds: int) -> None:
    decided: asyncio.Queue[Delivery] = asyncio.Queue()
    async with MemoryTransport(names=names) as transport, asyncio.TaskGroup() as group:
        await transport.consume([names.decisions], decided.put_nowait, prefetch=10)
        await transport.declare([names.tasks("sequence")])
        service = WorkerService(worker, transport, names=names, options=WorkerOptions(kept_runs=0))
        group.create_task(service.serve())

        async def microseconds(steps: int, run: str) -> float:
            envelope = turn_over(steps, run)
            cpu = time.process_time()
            await transport.send(names.tasks("sequence"), envelope)
            delivery = await decided.get()
            cpu = time.process_time() - cpu
            await delivery.ack()
            decision = codec.WORKFLOW_DECISION.decode(delivery.envelope.body)
            assert decision.status is DecisionStatus.COMPLETED, decision
            assert msgspec.json.decode(decision.output) == sum(range(steps)), decision
            return 1e6 * cpu / steps

        # The first turns of a workflow are watched more closely than all others.
        for number in range(FIRST_TURNS):
            await microseconds(10, f"warm-{number}")
        samples = [await microseconds(steps, f"run-{number}") for number in range(rounds)]
        service.request_stop()
    print(json.dumps(samples))


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
