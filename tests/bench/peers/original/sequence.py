"""The original worker with a workflow of sequential steps.

sequence.py redis://... PREFIX
"""

import asyncio
import sys

from durable_worker.redis_runner import run_redis_worker

from durable_worker import Worker

worker = Worker()


@worker.workflow("sequence")
def sequence(ctx, steps):
    total = 0
    for number in range(steps):
        total += ctx.step("step", number)
    return total


async def main(url: str, prefix: str) -> None:
    await run_redis_worker(worker, connection=url, prefix=prefix)
    await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
