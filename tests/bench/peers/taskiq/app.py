"""A Taskiq task that returns its number; its results go to a queue, confirmed before the ack."""

import os
from typing import Any

import aio_pika
from taskiq import AsyncResultBackend, TaskiqResult
from taskiq_aio_pika import AioPikaBroker, Exchange, Queue

URL = os.environ["BENCH_BROKER"]
TASKS, RESULTS = os.environ["BENCH_TASKS"], os.environ["BENCH_RESULTS"]
PREFETCH = int(os.environ["BENCH_PREFETCH"])


class ResultQueue(AsyncResultBackend[Any]):
    """Taskiq has no backend on RabbitMQ of its own."""

    async def startup(self) -> None:
        self._connection = await aio_pika.connect(URL)
        channel = await self._connection.channel(publisher_confirms=True)
        self._exchange = channel.default_exchange

    async def shutdown(self) -> None:
        await self._connection.close()

    async def set_result(self, task_id: str, result: TaskiqResult[Any]) -> None:
        message = aio_pika.Message(
            result.model_dump_json().encode(),
            correlation_id=task_id,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        await self._exchange.publish(message, RESULTS, mandatory=True)

    async def is_result_ready(self, task_id: str) -> bool:
        return False

    async def get_result(self, task_id: str, with_logs: bool = False) -> TaskiqResult[Any]:
        raise NotImplementedError


broker = AioPikaBroker(
    URL,
    result_backend=ResultQueue(),
    qos=PREFETCH,
    exchange=Exchange(name=f"{TASKS}-exchange"),
    task_queues=[Queue(name=TASKS, declare=False)],
    dead_letter_queue=Queue(name=f"{TASKS}-dead"),
)


@broker.task("noop")
async def noop(number: int, text: str) -> int:
    return number
