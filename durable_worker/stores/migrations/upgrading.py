"""Brings the schema of a PostgreSQL database to the version of this release."""

import time

import asyncpg
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from durable_worker.stores.address import PostgresAddress
from durable_worker.stores.migrations.scripts import Upgrade, refuse_if_any_lives, run_scripts
from durable_worker.stores.postgres.database import (
    CONNECT_SECONDS,
    SCHEMA_VERSION,
    check_version,
)
from durable_worker.stores.postgres.errors import translated_errors

_LOCK = "SELECT FROM lease FOR UPDATE"
_HOLDERS = (
    "SELECT instance_id, host, machine, pid, process_start FROM lease "
    "WHERE NOT is_released AND expires_at > :now"
)
_MEMBERS = (
    "SELECT instance_id, host, machine, pid, process_start FROM members WHERE expires_at > :now"
)
_ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(hashtext('durable-worker'), hashtext(:schema))"


async def upgrade(address: PostgresAddress) -> Upgrade:
    """In one transaction: all of it or nothing. Raises `StoreError`."""

    async def connect() -> "asyncpg.Connection[asyncpg.Record]":
        return await asyncpg.connect(address.dsn, timeout=CONNECT_SECONDS)

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    with translated_errors(address):
        try:
            async with engine.begin() as connection:
                return await connection.run_sync(_upgraded, address)
        except DBAPIError as error:
            if error.orig is not None and isinstance(error.orig.__cause__, Exception):
                raise error.orig.__cause__ from error
            raise
        finally:
            await engine.dispose()


def _upgraded(connection: Connection, address: PostgresAddress) -> Upgrade:
    connection.execute(text(_ONE_AT_A_TIME), {"schema": address.schema})
    connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{address.schema}"'))
    connection.execute(text(f'SET LOCAL search_path = "{address.schema}"'))
    before = _version(connection)
    if before is not None and before > SCHEMA_VERSION:
        check_version(before, address)
    if before is not None and before < SCHEMA_VERSION:
        _refuse_if_operated(connection, address)
    run_scripts(connection, "versions", table="schema_version", schema=address.schema)
    return Upgrade(before, SCHEMA_VERSION)


def _version(connection: Connection) -> int | None:
    if connection.scalar(text("SELECT to_regclass('schema_version')")) is None:
        return None
    found = connection.scalar(text("SELECT version_num FROM schema_version"))
    return None if found is None else int(found)


def _refuse_if_operated(connection: Connection, address: PostgresAddress) -> None:
    connection.execute(text(_LOCK))
    for statement in (_HOLDERS, _MEMBERS):
        found = connection.execute(text(statement), {"now": time.time_ns() // 1_000_000})
        refuse_if_any_lives(found, database=address.safe)
