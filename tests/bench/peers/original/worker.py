"""The original worker with one step that returns its number.

worker.py redis://... PREFIX CONCURRENCY
"""

import asyncio
import sys

from durable_worker.redis_runner import run_redis_worker

from durable_worker import Worker

worker = Worker()


@worker.step("noop")
async def noop(data: dict[str, object]) -> object:
    return data["number"]


async def main(url: str, prefix: str, concurrency: str) -> None:
    await run_redis_worker(worker, connection=url, prefix=prefix, concurrency=int(concurrency))
    await asyncio.Event().wait()


asyncio.run(main(*sys.argv[1:]))
