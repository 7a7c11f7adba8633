"""The load on DBOS in one process: plain functions in its threads, which are faster here than its
async ones."""

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from dbos import DBOS

from tests.bench import load

effects: Counter[int] = Counter()
plan = load.stated()


@DBOS.step()
def step(number: int) -> int:
    effects[number] += 1
    return number


@DBOS.workflow()
def sequence(index: int) -> int:
    total = 0
    for number in range(plan.steps):
        total += step(index * load.BASE + number)
    return total


def run(index: int) -> int:
    return DBOS.start_workflow(sequence, index).get_result()


async def main() -> None:
    DBOS(config={"name": "bench", "system_database_url": plan.place, "log_level": "WARNING"})
    DBOS.launch()
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(plan.concurrency) as callers:
        try:
            outcome = await load.drive(plan, lambda i: loop.run_in_executor(callers, run, i))
        finally:
            DBOS.destroy()
    load.check_effects(plan, effects)
    load.tell(outcome)


asyncio.run(main())
