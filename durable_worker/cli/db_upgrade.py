"""`durable-worker db upgrade`: the tables that this release needs."""

import asyncio
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from durable_worker.cli.databases import named_database
from durable_worker.cli.options import UpgradeDb
from durable_worker.cli.schemas import sqlite_version
from durable_worker.cli.serving import tell
from durable_worker.errors import UsageError
from durable_worker.stores.address import MysqlAddress, ServerAddress
from durable_worker.stores.opening import require_driver
from durable_worker.stores.sqlite import SqliteStore


class _Upgrade(Protocol):
    before: int | None
    after: int


class _Upgrading(Protocol):
    async def upgrade(self, address: ServerAddress) -> _Upgrade: ...


def perform(options: UpgradeDb) -> int:
    where = named_database(options.database)
    if isinstance(where, Path):
        before = sqlite_version(where) if where.exists() else None
        asyncio.run(_open(where))
        after = sqlite_version(where)
    else:
        done = asyncio.run(_upgrading(where).upgrade(where))
        before, after = done.before, done.after
    if before == after:
        tell(f"{where} has schema version {after} already; there was nothing to do")
    elif before is None:
        tell(f"{where} now has the tables of schema version {after}")
    else:
        tell(f"{where} was brought from schema version {before} to {after}")
    return 0


async def _open(path: Path) -> None:
    """SQLite's tables come and grow when the file is opened."""
    async with SqliteStore(path):
        pass


def _upgrading(address: ServerAddress) -> _Upgrading:
    require_driver(address)
    try:
        import_module("alembic")
        if isinstance(address, MysqlAddress):
            module = import_module("durable_worker.stores.migrations.upgrading_mysql")
        else:
            module = import_module("durable_worker.stores.migrations.upgrading")
    except ModuleNotFoundError as error:
        raise UsageError(
            f"`durable-worker db upgrade` needs the package {error.name}: "
            f"pip install 'durable-worker[migrations]'"
        ) from None
    return cast("_Upgrading", module)
