"""The data path of a worker without the worker: consume, decode, publish, confirm, acknowledge.

bare_loop.py amqp://... TASKS RESULTS CONCURRENCY
"""

import asyncio
import signal
import sys

import aiormq
import msgspec
from aiormq import spec
from aiormq.abc import DeliveredMessage

from durable_worker.protocol.results import ResultStatus, StepResult
from durable_worker.protocol.tasks import StepTask

TASK = msgspec.json.Decoder(StepTask)
encode = msgspec.json.Encoder().encode


class Work(msgspec.Struct):
    number: int
    text: str


def answer(body: bytes) -> tuple[str, bytes]:
    """The message id and the body of the result."""
    task = TASK.decode(body)
    work = msgspec.json.decode(task.input, type=Work)
    result = StepResult(
        run_id=task.run_id,
        seq=task.seq,
        step_id=task.step_id,
        status=ResultStatus.COMPLETED,
        output=msgspec.Raw(encode(work.number)),
    )
    return f"{task.step_id}:{task.attempt}", encode(result)


async def main(url: str, tasks: str, results: str, concurrency: str) -> None:
    consuming, publishing = await aiormq.connect(url), await aiormq.connect(url)
    incoming = await consuming.channel()
    outgoing = await publishing.channel(publisher_confirms=True)
    await incoming.basic_qos(prefetch_count=int(concurrency))

    async def perform(message: DeliveredMessage) -> None:
        message_id, body = answer(message.body)
        properties = spec.Basic.Properties(
            content_type="application/json",
            message_type="step-result",
            message_id=message_id,
            delivery_mode=2,
            headers={"durable-protocol": 1},
        )
        await outgoing.basic_publish(
            body, routing_key=results, properties=properties, mandatory=True
        )
        assert message.delivery_tag is not None
        await incoming.basic_ack(message.delivery_tag, wait=False)

    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await incoming.basic_consume(tasks, perform)
    await stopped.wait()
    await incoming.basic_qos(prefetch_count=1)  # its answer comes after the acks were written
    await consuming.close()
    await publishing.close()


asyncio.run(main(*sys.argv[1:]))
