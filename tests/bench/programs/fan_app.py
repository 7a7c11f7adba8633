"""A workflow that gathers so many steps, for `durable-worker run` and embedded."""

import asyncio

from durable_worker import Worker, WorkflowContext
from tests.bench import effects
from tests.bench.programs import quiet  # noqa: F401

worker = Worker()


@worker.step("step")
async def step(number: int) -> int:
    effects.seen[number] += 1
    return number


@worker.workflow("fan")
async def fan(ctx: WorkflowContext, steps: int) -> int:
    return sum(await asyncio.gather(*(ctx.step(step, number) for number in range(steps))))
