"""A Celery task that returns its number; its results go to the queue in `reply_to`."""

import os

from celery import Celery
from kombu import Exchange, Queue

app = Celery("bench", broker=os.environ["BENCH_BROKER"], backend="rpc://")
app.conf.update(
    task_queues=[
        Queue(
            os.environ["BENCH_TASKS"],
            Exchange(""),
            durable=True,
            no_declare=True,
            queue_arguments={"x-queue-type": "quorum"},
        )
    ],
    task_acks_late=True,
    worker_prefetch_multiplier=int(os.environ["BENCH_PREFETCH"]) // int(os.environ["BENCH_WIDTH"]),
    broker_transport_options={"confirm_publish": True},
    result_persistent=True,
    task_serializer="json",
    accept_content=["json"],
    worker_detect_quorum_queues=True,
    worker_enable_remote_control=False,
    worker_send_task_events=False,
)


@app.task(name="noop")
def noop(number: int, text: str) -> int:
    return number
