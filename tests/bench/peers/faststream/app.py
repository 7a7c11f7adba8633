"""A FastStream consumer that answers each task with its number, on two queues that exist."""

import asyncio
import logging
import os

from faststream import FastStream
from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue

PREFETCH = int(os.environ["BENCH_PREFETCH"])


def existing(name: str) -> RabbitQueue:
    return RabbitQueue(name, queue_type=QueueType.QUORUM, durable=True, declare=False)


broker = RabbitBroker(
    os.environ["BENCH_BROKER"],
    log_level=logging.WARNING,
    logger=None,
    default_channel=Channel(prefetch_count=PREFETCH, publisher_confirms=True),
)


@broker.subscriber(existing(os.environ["BENCH_TASKS"]))
@broker.publisher(existing(os.environ["BENCH_RESULTS"]), persist=True, mandatory=True)
async def noop(number: int, text: str) -> dict[str, int]:
    return {"number": number}


asyncio.run(FastStream(broker, logger=None).run())
