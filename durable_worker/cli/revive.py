"""`durable-worker retry`, `continue` and `redispatch`: set a run going again."""

import asyncio

from durable_worker.cli.options import Revive
from durable_worker.cli.places import open_client, what_to_start
from durable_worker.cli.serving import tell


def perform(options: Revive) -> int:
    asyncio.run(_revive(options))
    return 0


async def _revive(options: Revive) -> None:
    async with open_client(options.place) as client:
        match options.way:
            case "retry":
                await client.retry(options.run_id)
            case "continue":
                await client.resume(options.run_id)
            case "redispatch":
                await client.redispatch(options.run_id)
        if await client.is_taken_up():
            run = (await client.detail(options.run_id, keep_sealed=True)).run
            tell(f"run {run.id} is {run.status}")
        else:
            tell(
                f"That is recorded, but no operator has taken it up so far; it will be once "
                f"{what_to_start(options.place)} runs."
            )
