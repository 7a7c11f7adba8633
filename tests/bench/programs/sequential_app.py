"""A workflow of sequential steps, for `durable-worker run`."""

from durable_worker import Worker, WorkflowContext
from tests.bench.programs import quiet  # noqa: F401

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
