"""What other processes put into the database is taken at once, and also if nobody tells of it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
from msgspec import Raw

from durable_worker.operator.options import OperatorOptions
from durable_worker.operator.service import OperatorService
from durable_worker.protocol.names import Names
from durable_worker.stores.address import PostgresAddress
from durable_worker.stores.inputs import StartRun
from durable_worker.stores.postgres import PostgresStore
from durable_worker.stores.postgres.listening import RETRY_SECONDS, Listening
from durable_worker.transports.rabbitmq import RabbitTransport
from tests.database import Postgres
from tests.database.schemas import made_schema

pytestmark = [pytest.mark.anyio, pytest.mark.broker]

SELDOM = OperatorOptions(inbox_interval=timedelta(seconds=20))
"""So that nothing is found by looking while it is told."""

SOON = 5.0


@asynccontextmanager
async def operating(
    schema: PostgresAddress, url: str, prefix: str, options: OperatorOptions
) -> AsyncIterator[PostgresStore]:
    names = Names(prefix=prefix)
    async with PostgresStore(schema) as store, RabbitTransport(url, names=names) as transport:
        service = OperatorService(store, transport, names=names, options=options)
        async with asyncio.TaskGroup() as group:
            group.create_task(service.serve())
            await service.start("w", Raw(b"1"), run_id="first")
            yield store
            service.request_stop()


async def submitted(schema: PostgresAddress, run_id: str) -> float:
    """Seconds until the operator has started this run."""
    async with PostgresStore(schema) as store:
        began = time.monotonic()
        await store.submit(StartRun(run_id=run_id, workflow="w"))
        async with asyncio.timeout(30):
            while await store.load(run_id) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        return time.monotonic() - began


async def listens(store: PostgresStore) -> None:
    async with asyncio.timeout(SOON):
        while not store.is_telling:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_an_input_is_taken_when_it_is_submitted(
    schema: PostgresAddress, broker_url: str, prefix: str
) -> None:
    async with operating(schema, broker_url, prefix, SELDOM) as store:
        await store.has_news()
        await listens(store)
        assert [await submitted(schema, f"r{n}") < SOON for n in range(3)] == [True] * 3


async def test_inputs_in_another_schema_of_the_database_wake_nobody(
    postgres: Postgres, schema: PostgresAddress
) -> None:
    async def hears_of(address: PostgresAddress) -> bool:
        async with PostgresStore(address) as store:
            await store.submit(StartRun(run_id="r", workflow="w"))
        assert listening._connection is not None
        await listening._connection.execute("SELECT")  # what was told before has come with it
        return listening.heard.is_set()

    listening = Listening(schema)
    await listening.begin()
    with made_schema(postgres) as other:
        assert not await hears_of(other)
        assert await hears_of(schema)
    await listening.end()


async def test_who_was_cut_off_hears_again_and_looks_meanwhile(
    postgres: Postgres, schema: PostgresAddress, broker_url: str, prefix: str
) -> None:
    often = OperatorOptions(inbox_interval=timedelta(milliseconds=50))
    async with operating(schema, broker_url, prefix, often) as store:
        await listens(store)
        cut_off(store, postgres)
        assert await submitted(schema, "r1") < SOON
        await listens(store)
        assert await submitted(schema, "r2") < SOON


def cut_off(store: PostgresStore, postgres: Postgres) -> None:
    connection = store._listening._connection
    assert connection is not None
    postgres.execute(f"SELECT pg_terminate_backend({connection.get_server_pid()})")


async def test_a_server_that_tells_nobody_costs_no_connections_and_is_asked_now_and_then(
    schema: PostgresAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[asyncpg.Connection[asyncpg.Record]] = []
    connect = asyncpg.connect

    async def connecting(*place: Any, **settings: Any) -> "asyncpg.Connection[asyncpg.Record]":
        opened.append(await connect(*place, **settings))
        return opened[-1]

    async def refused(*_: object) -> None:
        raise asyncpg.ReadOnlySQLTransactionError("cannot execute LISTEN during recovery")

    monkeypatch.setattr(asyncpg, "connect", connecting)
    monkeypatch.setattr(asyncpg.Connection, "add_listener", refused)
    passed = [0.0]
    listening = Listening(schema, clock=lambda: passed[0])
    for passed[0] in (0.0, 0.1, RETRY_SECONDS - 0.1, RETRY_SECONDS, RETRY_SECONDS + 0.1):
        await listening.begin()
        assert not listening.is_on
    assert [each.is_closed() for each in opened] == [True, True]
