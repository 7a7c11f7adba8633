"""A worker process whose heartbeat is short. python -m tests.integration.blocked.serve

`BLOCKED_WITHOUT_PULSE` takes the thread of heartbeats away, as it was before there was one.
"""

import asyncio
import os

from durable_worker.cli.logs import configure
from durable_worker.cli.options import LogFormat
from durable_worker.cli.serving import StopSignals
from durable_worker.cli.states import ConnectionReporter
from durable_worker.protocol.names import Names
from durable_worker.transports.rabbitmq import RabbitTransport
from durable_worker.transports.rabbitmq.pulse import Pulse
from durable_worker.transports.rabbitmq.wire import Wire
from durable_worker.worker.options import WorkerOptions
from durable_worker.worker.service import WorkerService
from tests.integration.blocked.app import worker

HEARTBEAT = 2


def keep_nothing(self: Pulse, wire: Wire, *, heartbeat: float) -> None:
    """Stands in for `Pulse.keep`."""


async def main() -> None:
    if os.environ.get("BLOCKED_WITHOUT_PULSE"):
        Pulse.keep = keep_nothing  # type: ignore[method-assign]
    configure(LogFormat.JSON, debug=False)
    names = Names(prefix=os.environ["BLOCKED_PREFIX"])
    transport = RabbitTransport(
        os.environ["BLOCKED_BROKER"],
        names=names,
        heartbeat=HEARTBEAT,
        on_state=ConnectionReporter(),
    )
    async with transport:
        options = WorkerOptions(concurrency=8)
        service = WorkerService(worker, transport, names=names, options=options)
        with StopSignals(lambda is_hurrying: service.request_stop(hurry=is_hurrying)):
            await service.serve()


if __name__ == "__main__":
    asyncio.run(main())
