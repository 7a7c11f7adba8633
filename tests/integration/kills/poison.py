"""A step that kills its process each time, beside steps that only need to be left alone.

python -m tests.integration.kills.poison: one worker after the other, each forked from this process,
so that a life costs no start-up.
"""

import asyncio
import json
import os
import signal

import anyio

from durable_worker import StepContext, Worker, WorkflowContext
from durable_worker.protocol.names import Names
from durable_worker.transports.rabbitmq import RabbitTransport
from durable_worker.worker.options import WorkerOptions
from durable_worker.worker.service import WorkerService

SECONDS_TO_KILL = 0.2
SECONDS_OF_WORK = 1.0
"""Longer than it takes the poison to kill: no neighbour ends that runs beside it."""

worker = Worker()


def note(what: str, step: str) -> None:
    with open(os.environ["KILL_JOURNAL"], "ab") as file:
        file.write(json.dumps([what, step]).encode() + b"\n")


@worker.step("poison.kill")
async def kill(_: None, ctx: StepContext) -> None:
    note("start", ctx.step_id)
    await asyncio.sleep(SECONDS_TO_KILL)
    os.kill(os.getpid(), signal.SIGKILL)


@worker.step("poison.neighbour")
async def neighbour(number: int, ctx: StepContext) -> int:
    note("start", ctx.step_id)
    await asyncio.sleep(SECONDS_OF_WORK)
    note("end", ctx.step_id)
    return number


@worker.workflow("poison.flow")
async def flow(ctx: WorkflowContext, neighbours: int) -> list[int | str]:
    results = await asyncio.gather(
        ctx.step(kill, None),
        *(ctx.step(neighbour, number) for number in range(neighbours)),
        return_exceptions=True,
    )
    return [each if isinstance(each, int) else str(getattr(each, "code", each)) for each in results]


async def serve() -> None:
    names = Names(prefix=os.environ["KILL_PREFIX"])
    async with RabbitTransport(os.environ["KILL_BROKER"], names=names) as transport:
        options = WorkerOptions(concurrency=20)
        await WorkerService(worker, transport, names=names, options=options).serve()


def main() -> None:
    while True:
        pid = os.fork()
        if pid == 0:
            anyio.run(serve)
            os._exit(0)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
