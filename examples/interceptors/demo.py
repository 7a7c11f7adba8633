"""Run one order through the interceptors of app.py, and show what they saw."""

import asyncio
import sys
from pathlib import Path

import structlog
from structlog.typing import EventDict

sys.path.insert(0, str(Path(__file__).parent))
from app import Order, order, worker

from durable_worker.embedded import Embedded


def audit_only(_logger: object, _method: str, event: EventDict) -> str:
    if "operation" not in event:
        raise structlog.DropEvent
    return f"{event['run_id']}  {event['event']:<9} {event['operation']}"


async def main() -> None:
    structlog.configure(processors=[audit_only])
    async with Embedded(worker) as app:
        handle = await app.start(order, Order(id="o-1", cents=5990), run_id="o-1")
        print("the output:", await handle.result())
        for checkpoint in (await app.detail("o-1")).timeline:
            for event in checkpoint.events or ():
                print(checkpoint.name, event.message, bytes(event.data).decode())


asyncio.run(main())
