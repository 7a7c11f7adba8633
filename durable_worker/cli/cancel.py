"""`durable-worker cancel`: cancel a run."""

import asyncio
from datetime import timedelta

from durable_worker.cli.options import Cancel
from durable_worker.cli.places import open_client, what_to_start
from durable_worker.cli.serving import tell
from durable_worker.client import Client
from durable_worker.protocol.runs import RunRecord, RunStatus

_A_MOMENT = timedelta(seconds=1)


def perform(options: Cancel) -> int:
    asyncio.run(_cancel(options))
    return 0


async def _cancel(options: Cancel) -> None:
    async with open_client(options.place) as client:
        await client.cancel(options.run_id, compensate=False if options.is_final else None)
        if await client.is_taken_up():
            run = await _soon_ended(client, options.run_id)
            tell(f"run {run.id} is {run.status}")
            if run.status is RunStatus.CANCELLING:
                tell(
                    "Its body has been told, and is cleaning up; `--now` ends it at once, with "
                    "nothing undone."
                )
        else:
            tell(
                f"The cancellation is recorded, but no operator has taken it up so far; it will be "
                f"once {what_to_start(options.place)} runs."
            )


async def _soon_ended(client: Client, run_id: str) -> RunRecord:
    """The run; ended, if that takes no more than a moment."""
    try:
        return await client.wait(run_id, timeout=_A_MOMENT)
    except TimeoutError:
        return (await client.detail(run_id)).run
