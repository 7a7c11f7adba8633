"""The store for a database, whichever kind it is."""

from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Protocol, cast

from durable_worker.errors import UsageError
from durable_worker.stores.address import PostgresAddress, parse_database
from durable_worker.stores.dumps import DumpableStore
from durable_worker.stores.sqlite import SqliteStore


class _Postgres(Protocol):
    def PostgresStore(self, address: PostgresAddress) -> DumpableStore: ...


def store_at(database: str | PathLike[str] | PostgresAddress) -> DumpableStore:
    """`database` is a path, `sqlite:///PATH` or a PostgreSQL URL. Raises `UsageError`."""
    where = database if isinstance(database, PostgresAddress) else parse_database(database)
    if isinstance(where, Path):
        return SqliteStore(where)
    require_driver()
    postgres = cast("_Postgres", import_module("durable_worker.stores.postgres"))
    return postgres.PostgresStore(where)


def require_driver() -> None:
    """Raises `UsageError` unless the driver for PostgreSQL is installed."""
    try:
        import_module("asyncpg")
    except ModuleNotFoundError:
        raise UsageError(
            "PostgreSQL needs the package asyncpg: pip install 'durable-worker[postgres]'"
        ) from None
