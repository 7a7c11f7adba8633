"""Connections to one MariaDB or MySQL database, set up for what is asked on them."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

from asyncmy.errors import MySQLError

from durable_worker.errors import StoreError
from durable_worker.stores.address import MysqlAddress
from durable_worker.stores.mysql.connection import Answer, Connection, connected
from durable_worker.stores.mysql.errors import translated_errors
from durable_worker.stores.mysql.statements import Value, filled, loaded

SCHEMA_VERSION = 1

WORKERS, SCREENS = 4, 2
"""Connections at most: of the operator, and of what lists and counts."""

_sql = loaded("lease")

_PATIENCE = b"SET SESSION wait_timeout = 28800"

_SNAPSHOT = (
    b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    b"START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
)


class Pool:
    """Connections, opened when they are needed; the one that was used last is used next."""

    def __init__(self, address: MysqlAddress, *, size: int) -> None:
        self._address = address
        self._slots = asyncio.Semaphore(size)
        self._at_hand: list[Connection] = []
        self._is_closed = False

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        async with self._slots:
            connection = await self._taken()
            try:
                yield connection
            except MySQLError:
                self._put_back(connection)
                raise
            except BaseException:
                connection.drop()  # it may be within a transaction
                raise
            self._put_back(connection)

    def _put_back(self, connection: Connection) -> None:
        if connection.is_sound and not self._is_closed:
            self._at_hand.append(connection)
            return
        connection.drop()
        while self._at_hand:  # what has ended it has probably ended the others
            self._at_hand.pop().drop()

    async def _taken(self) -> Connection:
        while self._at_hand:
            connection = self._at_hand.pop()
            if connection.is_fresh:
                return connection
            connection.drop()
        return await connected(self._address)

    async def close(self) -> None:
        self._is_closed = True
        while self._at_hand:
            await self._at_hand.pop().close()


class Database:
    """`StoreError` and `PayloadError` are all that leaves it."""

    def __init__(self, address: MysqlAddress) -> None:
        self.address = address
        self.packet_limit = 0
        self._workers: Pool | None = None
        self._screens: Pool | None = None

    async def open(self) -> None:
        """Raises `StoreError` unless the schema is the one that this release knows."""
        self._workers = Pool(self.address, size=WORKERS)
        self._screens = Pool(self.address, size=SCREENS)
        try:
            async with self.connection() as connection:
                check_version(await version_of(connection), self.address)
                self.packet_limit = connection.packet_limit
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        pools, self._workers, self._screens = (self._workers, self._screens), None, None
        for pool in pools:
            if pool is not None:
                await pool.close()

    async def ask(self, statement: bytes, *values: Value) -> Answer:
        async with self.connection() as connection:
            return (await connection.ask(filled(statement, *values)))[0]

    async def ask_together(self, *statements: bytes) -> list[Sequence[Any]]:
        """The rows of each, as they were at one moment."""
        async with self.connection() as connection:
            answers = await connection.ask(b";".join((*_SNAPSHOT, *statements, b"COMMIT")))
        return [each.rows for each in answers[len(_SNAPSHOT) : -1]]

    async def screen(self, statement: bytes) -> Sequence[Any]:
        """On a connection that nothing that matters waits for."""
        with self.translated():
            async with self._opened(self._screens).connection() as connection:
                return (await connection.ask(statement))[0].rows

    def translated(self) -> AbstractContextManager[None]:
        return translated_errors(self.address)

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection]:
        with self.translated():
            async with self._opened(self._workers).connection() as connection:
                yield connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncGenerator[Connection]:
        """A connection of its own on which everything stays as it is."""
        with self.translated():
            connection = await connected(self.address)
            try:
                await connection.ask(b";".join((_PATIENCE, *_SNAPSHOT)))
                yield connection
            finally:
                await connection.close()

    def _opened(self, pool: Pool | None) -> Pool:
        if pool is None:
            raise StoreError(f"the database {self.address.safe} is closed")
        return pool


async def version_at(address: MysqlAddress) -> int | None:
    """None if there are no tables yet. Raises `StoreError`."""
    with translated_errors(address):
        connection = await connected(address)
        try:
            return await version_of(connection)
        finally:
            await connection.close()


async def version_of(connection: Connection) -> int | None:
    """The version of the schema; None if there are no tables of ours."""
    if not (await connection.ask(_sql["has_version_table"]))[0].rows[0][0]:
        return None
    rows = (await connection.ask(_sql["schema_version"]))[0].rows
    return int(rows[0][0]) if rows else None


def check_version(version: int | None, address: MysqlAddress) -> None:
    """Raises `StoreError`, with what to do."""
    if version == SCHEMA_VERSION:
        return
    if version is None:
        raise StoreError(
            f"the database {address.safe} has no tables of durable-worker yet; "
            f"`durable-worker db upgrade URL` creates them"
        )
    known = (
        f"the database {address.safe} has schema version {version}, this release of "
        f"durable-worker knows version {SCHEMA_VERSION}"
    )
    if version > SCHEMA_VERSION:
        raise StoreError(f"{known}: upgrade durable-worker, or use another database")
    raise StoreError(
        f"{known}: stop the operators of the older release, then `durable-worker db upgrade URL`"
    )
