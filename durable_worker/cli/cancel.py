"""`durable-worker cancel`: cancel a run."""

import asyncio

from durable_worker.cli.options import Cancel
from durable_worker.cli.places import open_client, what_to_start
from durable_worker.cli.serving import tell


def perform(options: Cancel) -> int:
    asyncio.run(_cancel(options))
    return 0


async def _cancel(options: Cancel) -> None:
    async with open_client(options.place) as client:
        await client.cancel(options.run_id)
        if await client.is_taken_up():
            run = (await client.detail(options.run_id)).run
            tell(f"run {run.id} is {run.status}")
        else:
            tell(
                f"The cancellation is recorded, but no operator has taken it up so far; it will be "
                f"once {what_to_start(options.place)} runs."
            )
