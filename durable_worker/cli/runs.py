"""`durable-worker runs`: list runs."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

from durable_worker.cli.documents import print_json, value_pairs
from durable_worker.cli.options import ListRuns
from durable_worker.cli.page import show
from durable_worker.cli.places import open_client
from durable_worker.cli.render import run_table
from durable_worker.protocol.runs import RunQuery, RunRecord


def perform(options: ListRuns) -> int:
    records = asyncio.run(_fetch(options))
    if options.is_json:
        print_json(records)
    else:
        show(run_table(records, now=datetime.now(UTC)))
    return 0


async def _fetch(options: ListRuns) -> Sequence[RunRecord]:
    query = RunQuery(
        workflow=options.workflow,
        status=options.status,
        search_attributes=value_pairs("--where", options.where) or None,
        limit=options.limit,
    )
    async with open_client(options.place) as client:
        return await client.list(query)
