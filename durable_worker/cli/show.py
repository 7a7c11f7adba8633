"""`durable-worker show`: one run and its timeline."""

import asyncio
from datetime import UTC, datetime

from durable_worker.cli.documents import print_json
from durable_worker.cli.options import Show
from durable_worker.cli.page import show
from durable_worker.cli.places import open_client
from durable_worker.cli.render import run_page
from durable_worker.protocol.runs import RunDetail


def perform(options: Show) -> int:
    detail = asyncio.run(_fetch(options))
    if options.is_json:
        print_json(detail)
    else:
        show(run_page(detail, now=datetime.now(UTC)))
    return 0


async def _fetch(options: Show) -> RunDetail:
    async with open_client(options.place, codec=options.codec) as client:
        return await client.detail(options.run_id, keep_sealed=True)
