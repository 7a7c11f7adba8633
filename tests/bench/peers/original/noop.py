"""The original worker with one step that gives back its number, and counts it.

noop.py redis://... PREFIX CONCURRENCY ROOT
"""

import asyncio
import signal
import sys

from durable_worker.redis_runner import run_redis_worker

from durable_worker import Worker

sys.path.append(sys.argv[4])  # behind the packages of this environment

from tests.bench import effects

worker = Worker()


@worker.step("noop")
async def noop(data: dict[str, int]) -> int:
    effects.seen[data["number"]] += 1
    return data["number"]


async def main(url: str, prefix: str, concurrency: int) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await run_redis_worker(worker, connection=url, prefix=prefix, concurrency=concurrency)
    await stopped.wait()


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
