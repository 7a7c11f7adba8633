"""Brings the tables of a MariaDB or MySQL database to the version of this release.

Each change of a table is a transaction of its own there. So the table of versions is made first,
and a script leaves alone what a run before it has made that did not get to its end.
"""

import time
from typing import Any

from asyncmy.errors import MySQLError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from durable_worker.errors import StoreError
from durable_worker.stores.address import MysqlAddress
from durable_worker.stores.migrations.scripts import Upgrade, refuse_if_any_lives, run_scripts
from durable_worker.stores.mysql.connection import opened
from durable_worker.stores.mysql.database import SCHEMA_VERSION, check_version
from durable_worker.stores.mysql.errors import translated_errors

TABLE = "durable_schema_version"
LOCK_SECONDS = 60

_ONE_AT_A_TIME = "SELECT GET_LOCK(LEFT(CONCAT('durable-worker:', DATABASE()), 64), :seconds)"
_LET_GO = "SELECT RELEASE_LOCK(LEFT(CONCAT('durable-worker:', DATABASE()), 64))"
_MAKE_TABLE = f"CREATE TABLE {TABLE} (version_num VARCHAR(32) NOT NULL PRIMARY KEY) ENGINE = InnoDB"
_TABLES = (
    "SELECT table_name FROM information_schema.tables "
    "WHERE table_schema = DATABASE() AND table_name LIKE 'durable\\_%'"
)
_HOLDERS = (
    "SELECT CONVERT(instance_id USING utf8mb4), CONVERT(host USING utf8mb4), "
    "CONVERT(machine USING utf8mb4), pid, CONVERT(process_start USING utf8mb4) "
    "FROM durable_lease WHERE NOT is_released AND expires_at > :now"
)


async def upgrade(address: MysqlAddress) -> Upgrade:
    """Raises `StoreError`. Once more does no harm, whatever became of the time before."""

    async def connect() -> Any:
        return await opened(address)

    engine = create_async_engine("mysql+asyncmy://", async_creator=connect, poolclass=NullPool)
    with translated_errors(address):
        try:
            async with engine.connect() as connection:
                return await connection.run_sync(_upgraded_alone, address)
        except DBAPIError as error:
            if isinstance(error.orig, MySQLError | OSError):
                raise error.orig from error
            cause = None if error.orig is None else error.orig.__cause__
            if isinstance(cause, Exception):
                raise cause from error
            raise
        finally:
            await engine.dispose()


def _upgraded_alone(connection: Connection, address: MysqlAddress) -> Upgrade:
    if not connection.scalar(text(_ONE_AT_A_TIME), {"seconds": LOCK_SECONDS}):
        raise StoreError(f"somebody else upgrades the database {address.safe} at present")
    try:
        return _upgraded(connection, address)
    finally:
        connection.rollback()
        connection.execute(text(_LET_GO))


def _upgraded(connection: Connection, address: MysqlAddress) -> Upgrade:
    before = _version_of_tables(connection, address)
    if before is not None and before > SCHEMA_VERSION:
        check_version(before, address)
    if before is not None and before < SCHEMA_VERSION:
        found = connection.execute(text(_HOLDERS), {"now": time.time_ns() // 1_000_000})
        refuse_if_any_lives(found, database=address.safe)
    run_scripts(connection, "mysql_versions", table=TABLE)
    connection.commit()
    return Upgrade(before, SCHEMA_VERSION)


def _version_of_tables(connection: Connection, address: MysqlAddress) -> int | None:
    tables = {row[0] for row in connection.execute(text(_TABLES))}
    if TABLE not in tables:
        if tables:
            raise StoreError(
                f"the database {address.safe} holds tables of something else "
                f"({', '.join(sorted(tables))}); give the URL of another database"
            )
        connection.execute(text(_MAKE_TABLE))
        return None
    found = connection.scalar(text(f"SELECT version_num FROM {TABLE}"))
    return None if found is None else int(found)
