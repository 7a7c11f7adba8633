"""The load on an operator that is embedded in this process, with its state in a SQLite file."""

import asyncio
import logging
from collections import Counter

import structlog

from durable_worker import Worker, WorkflowContext
from durable_worker.embedded import Embedded
from tests.bench import load

worker = Worker()
effects: Counter[int] = Counter()
plan = load.stated()
# As the peers are told: what goes well is not worth a line.
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))


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
