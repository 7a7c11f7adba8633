"""Every test of this folder runs on every store."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from durable_worker.stores.address import MysqlAddress, PostgresAddress
from durable_worker.stores.base import Store
from durable_worker.stores.memory import MemoryStore
from durable_worker.stores.mysql import MysqlStore
from durable_worker.stores.postgres import PostgresStore
from durable_worker.stores.sqlite import SqliteStore


@pytest.fixture(params=["memory", "sqlite", "postgres", "mysql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with _made(request, tmp_path) as made:
        yield made


def _made(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    match request.param:
        case "memory":
            return MemoryStore()
        case "sqlite":
            return SqliteStore(tmp_path / "a" / "b")
        case "postgres":
            schema: PostgresAddress = request.getfixturevalue("schema")
            return PostgresStore(schema)
        case _:
            database: MysqlAddress = request.getfixturevalue("mysql_database")
            return MysqlStore(database)
