"""The load on an operator that is embedded in this process, with its state in a SQLite file."""

import asyncio
from collections import Counter

from durable_worker import Worker, WorkflowContext
from durable_worker.embedded import Embedded
from tests.bench import load
from tests.bench.programs import quiet  # noqa: F401

worker = Worker()
effects: Counter[int] = Counter()
plan = load.stated()


@worker.step("step")
async def step(number: int) -> int:
    effects[number] += 1
    return number


@worker.workflow("sequence")
async def sequence(ctx: WorkflowContext, index: int) -> int:
    total = 0
    for number in range(plan.steps):
        total += await ctx.step(step, index * load.BASE + number)
    return total


async def main() -> None:
    async with Embedded(worker, database=plan.place) as client:

        async def run(index: int) -> int:
            return await (await client.start(sequence, index, run_id=f"run-{index}")).result()

        outcome = await load.drive(plan, run)
    load.check_effects(plan, effects)
    load.tell(outcome)


asyncio.run(main())
