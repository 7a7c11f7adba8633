"""The data path of a worker without the worker: consume, decode, publish, confirm, acknowledge.

bare_loop.py amqp://... TASKS RESULTS CONCURRENCY
"""

import asyncio
import signal
import sys
from functools import partial

import msgspec

from durable_worker.protocol.results import ResultStatus, StepResult
from durable_worker.protocol.tasks import StepTask
from tests.bench.worker.bare_path import BarePath

TASK = msgspec.json.Decoder(StepTask)
encode = msgspec.json.Encoder().encode


class Work(msgspec.Struct):
    number: int
    text: str


WORK = msgspec.json.Decoder(Work)


def answer(body: bytes) -> tuple[str, bytes]:
    """The message id and the body of the result."""
    task = TASK.decode(body)
    assert isinstance(task.input, msgspec.Raw)
    result = StepResult(
        run_id=task.run_id,
        seq=task.seq,
        step_id=task.step_id,
        status=ResultStatus.COMPLETED,
        output=msgspec.Raw(encode(WORK.decode(task.input).number)),
    )
    return f"{task.step_id}:{task.attempt}", encode(result)


async def main(url: str, tasks: str, results: str, concurrency: str) -> None:
    path = await BarePath.open(url)

    def perform(tag: int, body: bytes) -> None:
        path.publish(results, *answer(body), then=partial(path.ack, tag))

    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await path.consume(tasks, perform, prefetch=int(concurrency))
    await stopped.wait()
    await path.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
