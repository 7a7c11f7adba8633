"""A worker as a process that tells the journal which results the broker has confirmed.

python -m tests.interop.worker [MODULE]   (AMQP_URL, PREFIX, KEPT_RUNS, PARTITION from the
environment; MODULE has a `worker`, by default `tests.interop.app`)
"""

import importlib
import os
import signal
import sys

import anyio
import structlog

from durable_worker.protocol.codec import MessageType
from durable_worker.protocol.names import Names
from durable_worker.transports.base import Envelope
from durable_worker.transports.rabbitmq import RabbitTransport
from durable_worker.worker.options import WorkerOptions
from durable_worker.worker.service import WorkerService
from tests.interop.journal import journal


class TellingTransport(RabbitTransport):
    async def send(self, queue: str, envelope: Envelope) -> None:
        await super().send(queue, envelope)
        if envelope.type == MessageType.STEP_RESULT:
            journal("confirmed", envelope.message_id or "")


async def main() -> None:
    structlog.configure(processors=[structlog.processors.JSONRenderer()])
    names = Names(prefix=os.environ["PREFIX"])
    options = WorkerOptions(
        concurrency=8,
        partition=os.environ.get("PARTITION"),
        kept_runs=int(os.environ.get("KEPT_RUNS", "1000")),
    )
    module = importlib.import_module(sys.argv[1] if sys.argv[1:] else "tests.interop.app")
    async with TellingTransport(os.environ["AMQP_URL"], names=names) as transport:
        service = WorkerService(module.worker, transport, names=names, options=options)
        async with anyio.create_task_group() as group:
            group.start_soon(_stop_on_sigterm, service)
            await service.serve()
            group.cancel_scope.cancel()


async def _stop_on_sigterm(service: WorkerService) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        async for _signal in signals:
            service.request_stop()


if __name__ == "__main__":
    anyio.run(main)
