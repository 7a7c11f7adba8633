"""A run that this release cannot read, such as one that a newer release wrote, is trouble for who
asks for it, and for nobody else."""

import asyncio

import pytest

from durable_worker.errors import RequestRefusedError
from durable_worker.operator.loading import Loading
from durable_worker.protocol.runs import RunDetail
from durable_worker.stores.address import PostgresAddress
from durable_worker.stores.postgres import PostgresStore
from tests.conformance.stores.samples import a_run, keep
from tests.database import Postgres
from tests.integration.operators.stage import operating
from tests.integration.operators.test_together import worker

pytestmark = [pytest.mark.anyio, pytest.mark.broker]

NAMES = [f"r{number}" for number in range(20)]
UNREADABLE = "r7"


async def spoiled(postgres: Postgres, schema: PostgresAddress) -> None:
    async with PostgresStore(schema) as store:
        token = await keep(store, *(a_run(name) for name in NAMES))
        await store.release_lease(token)
    statement = f"UPDATE {schema.schema}.runs SET status = 'unheard of' WHERE id = '{UNREADABLE}'"
    await asyncio.to_thread(postgres.execute, statement)


async def test_who_asks_for_others_at_the_same_moment_gets_them(
    postgres: Postgres, schema: PostgresAddress
) -> None:
    await spoiled(postgres, schema)
    async with PostgresStore(schema) as store:
        loading = Loading(store)
        found = await asyncio.gather(*map(loading.load, NAMES), return_exceptions=True)
        assert [type(each) for each in found].count(KeyError) == 1
        told = {name: each for name, each in zip(NAMES, found, strict=True) if name != UNREADABLE}
        assert told == await store.load_many([name for name in NAMES if name != UNREADABLE])


async def test_clients_are_told_all_but_what_cannot_be_read(
    postgres: Postgres, schema: PostgresAddress, broker_url: str, prefix: str
) -> None:
    await spoiled(postgres, schema)
    async with operating(1, worker, schema=schema, url=broker_url, prefix=prefix) as stage:
        details = await asyncio.gather(*map(stage.client.detail, NAMES), return_exceptions=True)
    for name, detail in zip(NAMES, details, strict=True):
        if name == UNREADABLE:
            assert isinstance(detail, RequestRefusedError)
            assert "unheard of" in str(detail)
        else:
            assert isinstance(detail, RunDetail)
            assert detail.run.id == name
