"""Listings are shown while somebody counts, which may take long where there are many runs."""

import asyncio

import asyncpg
import pytest

from durable_worker.protocol.runs import RunQuery
from durable_worker.stores.address import PostgresAddress
from durable_worker.stores.postgres import PostgresStore
from durable_worker.stores.records import Facets
from tests.conformance.stores.samples import a_run, keep

pytestmark = pytest.mark.anyio


async def test_counts_that_take_long_keep_no_listing_waiting(schema: PostgresAddress) -> None:
    async with PostgresStore(schema) as store:
        await keep(store, a_run("a", tags=("vip",)), a_run("b"))
        connection = await asyncpg.connect(schema.dsn)
        try:
            await connection.execute(f"BEGIN; LOCK TABLE {schema.schema}.run_tags")
            counts = [asyncio.ensure_future(store.facets(RunQuery(tag="vip"))) for _ in range(4)]
            while not await waits_for_lock(connection, schema):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            async with asyncio.timeout(20):
                listed = [await store.list_runs(RunQuery()) for _ in range(3)]
            assert [[run.id for run in runs] for runs in listed] == [["b", "a"]] * 3
            assert not any(each.done() for each in counts)
            await connection.execute("ROLLBACK")
            assert await asyncio.gather(*counts) == [Facets({"running": 1}, {"w": 1})] * 4
        finally:
            await connection.close()


async def waits_for_lock(
    connection: "asyncpg.Connection[asyncpg.Record]", schema: PostgresAddress
) -> bool:
    found = await connection.fetchval(
        "SELECT count(*) FROM pg_locks WHERE relation = to_regclass($1) AND NOT granted",
        f"{schema.schema}.run_tags",
    )
    return bool(found)
