"""`durable-worker signal`: send a signal."""

import asyncio

from msgspec import Raw

from durable_worker.cli.documents import json_argument
from durable_worker.cli.options import Signal
from durable_worker.cli.places import open_client, what_to_start
from durable_worker.cli.serving import tell


def perform(options: Signal) -> int:
    payload = json_argument("--payload", options.payload)
    asyncio.run(_send(options, payload))
    return 0


async def _send(options: Signal, payload: Raw | None) -> None:
    async with open_client(options.place, codec=options.codec) as client:
        await client.signal(options.name, payload)
        if await client.is_taken_up():
            tell(f"sent signal {options.name}")
        else:
            tell(
                f"The signal is recorded, but no operator has taken it up so far; it will be once "
                f"{what_to_start(options.place)} runs."
            )
