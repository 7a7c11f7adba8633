"""Connections to one PostgreSQL database, set up for what is asked on them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import asyncpg

from durable_worker.errors import StoreError
from durable_worker.stores.address import PostgresAddress
from durable_worker.stores.postgres.errors import translated_errors
from durable_worker.stores.queries import load_statements

SCHEMA_VERSION = 2

CONNECT_SECONDS = 10.0
STATEMENT_SECONDS = 30.0
SCREEN_SECONDS = 60.0
CLOSE_SECONDS = 5.0
WORKERS, SCREENS = 4, 2
"""Connections at most: of the operator, and of what lists and counts."""

Row = asyncpg.Record

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Pool = asyncpg.Pool[Row]
    Connection = PoolConnectionProxy[Row] | asyncpg.Connection[Row]

_sql = load_statements("postgres", "setup")

_SESSION = """
SET search_path = "{schema}";
SET default_transaction_isolation = 'read committed';
SET jit = off;
SET tcp_keepalives_idle = 10;
SET tcp_keepalives_interval = 5;
SET tcp_keepalives_count = 3;
"""

# A plan that was made while a table was small is kept; all of these find rows by key.
_WORKER = """
SET plan_cache_mode = force_generic_plan;
SET enable_seqscan = off;
SET max_parallel_workers_per_gather = 0;
"""

# Which index serves a filter depends on what is asked for. Whatever the statistics say of a status
# that hardly any run has, or all: what an index gives in order is not sorted.
_SCREEN = """
SET plan_cache_mode = force_custom_plan;
SET enable_seqscan = off;
SET enable_sort = off;
"""


class Database:
    """`StoreError` and `PayloadError` are all that leaves it."""

    def __init__(self, address: PostgresAddress) -> None:
        self.address = address
        self._workers: Pool | None = None
        self._screens: Pool | None = None
        self._at_hand: list[PoolConnectionProxy[Row]] = []
        self._asking = 0

    async def open(self) -> None:
        """Raises `StoreError` unless the schema is the one that this release knows."""
        self._workers = self._pool(_WORKER, size=WORKERS, seconds=STATEMENT_SECONDS)
        self._screens = self._pool(_SCREEN, size=SCREENS, seconds=SCREEN_SECONDS)
        try:
            with translated_errors(self.address):
                await self._workers
                await self._screens
                async with self.connection() as connection:
                    check_version(await version_of(connection, self.address), self.address)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        pools, self._workers, self._screens = (self._workers, self._screens), None, None
        at_hand, self._at_hand = self._at_hand, []
        for pool in pools:
            if pool is None:
                continue
            try:
                async with asyncio.timeout(CLOSE_SECONDS):
                    while pool is pools[0] and at_hand:
                        await pool.release(at_hand.pop())
                    await pool.close()
            except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                with suppress(asyncpg.InterfaceError):  # one that was never opened
                    pool.terminate()

    async def fetch(self, statement: str, *values: Any) -> list[Any]:
        with translated_errors(self.address):
            pool = self._opened(self._workers)
            connection = await self._take(pool)
            try:
                rows = await connection.fetch(statement, *values)
            except BaseException:
                # It may have to be cancelled on the server first, or is gone: the pool sees to it.
                await pool.release(connection)
                raise
            await self._put_back(pool, connection)
            return rows

    async def screen(self, statement: str, *values: Any) -> list[Any]:
        """Like `fetch`, with a plan that is made for these values."""
        with translated_errors(self.address):
            async with self._opened(self._screens).acquire() as connection:
                return await connection.fetch(statement, *values)

    @asynccontextmanager
    async def connection(self) -> "AsyncGenerator[PoolConnectionProxy[Row]]":
        with translated_errors(self.address):
            pool = self._opened(self._workers)
            connection = await self._take(pool)
            try:
                yield connection
            finally:
                await pool.release(connection)

    async def _take(self, pool: "Pool") -> "PoolConnectionProxy[Row]":
        while self._at_hand:
            connection = self._at_hand.pop()
            if not _is_lost(connection):
                return connection
            await pool.release(connection)
        self._asking += 1
        try:
            return await pool.acquire()
        finally:
            self._asking -= 1

    async def _put_back(self, pool: "Pool", connection: "PoolConnectionProxy[Row]") -> None:
        """Keep it at hand: to take one out of the pool costs more than most statements do."""
        if self._asking or pool is not self._workers:
            await pool.release(connection)
        else:
            self._at_hand.append(connection)

    def _opened(self, pool: "Pool | None") -> "Pool":
        if pool is None:
            raise StoreError(f"the database {self.address.safe} is closed")
        return pool

    def _pool(self, settings: str, *, size: int, seconds: float) -> "Pool":
        async def set_up(connection: "Connection") -> None:
            await connection.execute(_SESSION.format(schema=self.address.schema) + settings)

        async def keep_as_it_is(_: "Connection") -> None:
            """Nothing here changes a session, and a round trip to reset it costs as much as a
            statement."""

        with translated_errors(self.address):
            return asyncpg.create_pool(
                self.address.dsn,
                min_size=0,
                max_size=size,
                init=set_up,
                reset=keep_as_it_is,
                timeout=CONNECT_SECONDS,
                command_timeout=seconds,
                server_settings={"application_name": "durable-worker"},
            )


def _is_lost(connection: "PoolConnectionProxy[Row]") -> bool:
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True  # the pool has taken it back when it broke


async def version_at(address: PostgresAddress) -> int | None:
    """None if there are no tables yet. Raises `StoreError`."""
    with translated_errors(address):
        connection = await asyncpg.connect(address.dsn, timeout=CONNECT_SECONDS)
        try:
            await connection.execute(f'SET search_path = "{address.schema}"')
            return await version_of(connection, address)
        finally:
            await connection.close(timeout=CONNECT_SECONDS)


async def version_of(connection: "Connection", address: PostgresAddress) -> int | None:
    """The version of the schema; None if there are no tables of ours. Raises `StoreError` if this
    user may not know."""
    found = await connection.fetchrow(_sql["find_schema"], address.schema)
    assert found is not None
    if not found["is_permitted"]:
        raise StoreError(
            f"the database {address.safe} denies user {found['name']!r} its schema; let the owner "
            f"GRANT USAGE ON SCHEMA {address.schema} and the rights on its tables"
        )
    if not found["has_version"]:
        return None
    version = await connection.fetchval(_sql["schema_version"])
    return None if version is None else int(version)


def check_version(version: int | None, address: PostgresAddress) -> None:
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
        raise StoreError(f"{known}: upgrade durable-worker, or use another database or schema")
    raise StoreError(
        f"{known}: stop the operators of the older release, then `durable-worker db upgrade URL`"
    )
