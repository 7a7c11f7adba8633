"""The workflow of the common load, for `durable-worker run`."""

from durable_worker import Worker, WorkflowContext
from tests.bench import effects, load
from tests.bench.programs import quiet  # noqa: F401

worker = Worker()


@worker.step("step")
async def step(number: int) -> int:
    effects.seen[number] += 1
    return number


@worker.workflow("sequence")
async def sequence(ctx: WorkflowContext, index: int) -> int:
    total = 0
    for number in range(load.STEPS):
        total += await ctx.step(step, index * load.BASE + number)
    return total
