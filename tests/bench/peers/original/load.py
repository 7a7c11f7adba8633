"""Puts tasks on the queue of the original's operator, read from standard input, one a line.

load.py redis://... QUEUE
"""

import asyncio
import json
import sys

from bullmq import Queue

BATCH = 500


async def main(url: str, name: str) -> None:
    queue = Queue(name, {"connection": url})
    tasks = [json.loads(line) for line in sys.stdin]
    options = {"removeOnComplete": True, "removeOnFail": True}
    for start in range(0, len(tasks), BATCH):
        batch = tasks[start : start + BATCH]
        await queue.addBulk([{"name": "task", "data": task, "opts": options} for task in batch])
    await queue.close()


asyncio.run(main(*sys.argv[1:]))
