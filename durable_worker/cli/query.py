"""`durable-worker query`: what a run answers."""

import asyncio
from typing import Any

from durable_worker.cli.documents import print_json
from durable_worker.cli.options import Query
from durable_worker.cli.places import open_client


def perform(options: Query) -> int:
    print_json(asyncio.run(_ask(options)))
    return 0


async def _ask(options: Query) -> Any:
    async with open_client(options.place, codec=options.codec) as client:
        return await client.query(options.run_id, options.name)
