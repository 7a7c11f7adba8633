"""The store for a database, whichever kind it is."""

from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Protocol, cast

from durable_worker.errors import UsageError
from durable_worker.stores.address import (
    Address,
    MysqlAddress,
    PostgresAddress,
    ServerAddress,
    parse_database,
)
from durable_worker.stores.dumps import DumpableStore
from durable_worker.stores.sqlite import SqliteStore


class _Postgres(Protocol):
    def PostgresStore(self, address: PostgresAddress) -> DumpableStore: ...


class _Mysql(Protocol):
    def MysqlStore(self, address: MysqlAddress) -> DumpableStore: ...


def store_at(database: str | PathLike[str] | ServerAddress) -> DumpableStore:
    """`database` is a path, `sqlite:///PATH` or the URL of a server. Raises `UsageError`."""
    where: Address
    if isinstance(database, PostgresAddress | MysqlAddress):
        where = database
    else:
        where = parse_database(database)
    if isinstance(where, Path):
        return SqliteStore(where)
    require_driver(where)
    if isinstance(where, MysqlAddress):
        mysql = cast("_Mysql", import_module("durable_worker.stores.mysql"))
        return mysql.MysqlStore(where)
    postgres = cast("_Postgres", import_module("durable_worker.stores.postgres"))
    return postgres.PostgresStore(where)


def require_driver(address: ServerAddress) -> None:
    """Raises `UsageError` unless the driver for this kind of server is installed."""
    kind, extra = "PostgreSQL", "postgres"
    try:
        if isinstance(address, MysqlAddress):
            kind, extra = "MariaDB or MySQL", "mysql"
            import_module("asyncmy")
        else:
            import_module("asyncpg")
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{kind} needs the package {error.name}: pip install 'durable-worker[{extra}]'"
        ) from None
