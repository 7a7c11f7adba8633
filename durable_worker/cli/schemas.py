"""Which version the tables of a database have."""

import sqlite3
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from durable_worker.errors import UsageError
from durable_worker.stores.address import MysqlAddress, ServerAddress
from durable_worker.stores.opening import require_driver
from durable_worker.stores.sqlite.connection import translated_errors


class _Database(Protocol):
    SCHEMA_VERSION: int

    async def version_at(self, address: ServerAddress) -> int | None: ...


def require_sqlite_file(path: Path) -> None:
    """Raises `UsageError`."""
    if not path.exists():
        raise UsageError(f"there is no database {path}; `durable-worker db upgrade` creates one.")


def sqlite_version(path: Path) -> int | None:
    """None if the file holds no tables of ours. Changes nothing. Raises `StoreError`."""
    with translated_errors(path), closing(sqlite3.connect(path)) as database:
        tables = database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        if ("schema_version",) not in tables.fetchall():
            return None
        row = database.execute("SELECT max(version) FROM schema_version").fetchone()
        return None if row[0] is None else int(row[0])


async def server_version(address: ServerAddress) -> tuple[int | None, int]:
    """The version there (None: no tables yet), and the one that this release knows."""
    require_driver(address)
    if isinstance(address, MysqlAddress):
        found = import_module("durable_worker.stores.mysql.database")
    else:
        found = import_module("durable_worker.stores.postgres.database")
    database = cast("_Database", found)
    return await database.version_at(address), database.SCHEMA_VERSION
