"""`durable-worker dead list`: list dead letters."""

import asyncio
from collections.abc import Sequence

from durable_worker.cli.dead_pages import letter_table
from durable_worker.cli.documents import print_json
from durable_worker.cli.options import ListDead
from durable_worker.cli.page import show
from durable_worker.cli.places import open_client
from durable_worker.protocol.letters import DeadLetterRecord


def perform(options: ListDead) -> int:
    letters = asyncio.run(_fetch(options))
    if options.is_json:
        print_json(letters)
    else:
        show(letter_table(letters))
    return 0


async def _fetch(options: ListDead) -> Sequence[DeadLetterRecord]:
    async with open_client(options.place) as client:
        return await client.dead_letters(limit=options.limit, run_id=options.run_id)
