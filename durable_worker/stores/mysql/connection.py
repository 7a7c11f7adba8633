"""One connection to a MariaDB or MySQL server: packets of statements in, rows out."""

import asyncio
import ssl
import struct
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, cast

from asyncmy.errors import MySQLError

from durable_worker.errors import StoreError
from durable_worker.stores.address import MysqlAddress
from durable_worker.stores.mysql.errors import code_of

CONNECT_SECONDS = 10.0
STATEMENT_SECONDS = 60.0
CLOSE_SECONDS = 5.0
LOCK_SECONDS = 10
IDLE_SECONDS = 60
"""After which the server ends a connection, and frees what a client held that is gone."""

_GARBAGE = (LookupError, ValueError, TypeError, AttributeError, struct.error)
"""What the driver raises about a greeting that it cannot read."""

_FOUND_ROWS = 2
"""Count rows that an UPDATE finds, not only those that it changes."""

# What stands in /*M! */ is for MariaDB alone. Warnings are not kept: the driver would log them.
_SET_UP = f"""
SET NAMES binary;
SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION',
    wait_timeout = {IDLE_SECONDS}, innodb_lock_wait_timeout = {LOCK_SECONDS}, max_error_count = 0
    /*M!100300 , idle_write_transaction_timeout = {LOCK_SECONDS} */
    /*M!100318 , in_predicate_conversion_threshold = 0 */;
SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED;
SELECT @@max_allowed_packet
""".encode()


@dataclass(frozen=True, slots=True)
class Answer:
    """To one statement: its rows, and how many it has changed or found to be changed."""

    rows: Sequence[Any]
    count: int


class _Cursor(Protocol):
    rowcount: int

    def execute(self, query: bytes) -> Awaitable[int]: ...
    def fetchall(self) -> Awaitable[Sequence[Any]]: ...
    def nextset(self) -> Awaitable[bool | None]: ...


class _Driven(Protocol):
    """A connection of the driver."""

    def cursor(self) -> _Cursor: ...
    def close(self) -> None: ...
    def ensure_closed(self) -> Awaitable[None]: ...


class _Driver(Protocol):
    def connect(self, **options: object) -> Awaitable[_Driven]: ...


_driver = cast("_Driver", import_module("asyncmy"))


class Connection:
    """Not for two at a time. `is_sound` is false once nobody knows what it would answer next."""

    def __init__(self, driven: _Driven) -> None:
        self._driven = driven
        self._used_at = time.monotonic()
        self.is_sound = True
        self.packet_limit = 0

    @property
    def is_fresh(self) -> bool:
        """Whether the server has not ended it, as far as is known here."""
        is_recent = time.monotonic() - self._used_at < IDLE_SECONDS / 2
        return self.is_sound and is_recent

    async def ask(self, packet: bytes) -> list[Answer]:
        """What each statement in it gave. The first that fails ends the packet, and rolls back the
        transaction that it began. Raises what the driver raises, and `TimeoutError`."""
        try:
            async with asyncio.timeout(STATEMENT_SECONDS):
                return await self._answers(packet)
        except BaseException as error:
            self.is_sound = code_of(error) is not None and await self._has_rolled_back()
            if not self.is_sound:
                self._driven.close()
            raise

    async def _answers(self, packet: bytes) -> list[Answer]:
        self._used_at = time.monotonic()
        cursor = self._driven.cursor()
        await cursor.execute(packet)
        answers = [Answer(await cursor.fetchall(), cursor.rowcount)]
        while await cursor.nextset():
            answers.append(Answer(await cursor.fetchall(), cursor.rowcount))
        return answers

    async def _has_rolled_back(self) -> bool:
        try:
            async with asyncio.timeout(STATEMENT_SECONDS):
                await self._driven.cursor().execute(b"ROLLBACK")
        except (MySQLError, OSError):
            return False
        return True

    async def close(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._driven.ensure_closed()
        except TimeoutError:
            self._driven.close()

    def drop(self) -> None:
        self.is_sound = False
        self._driven.close()


async def connected(address: MysqlAddress) -> Connection:
    """Raises what the driver raises, `OSError`, and `StoreError`."""
    try:
        driven = await opened(address)
    except _GARBAGE as error:
        raise StoreError(
            f"the database {address.safe} cannot be used: what answers there is no MariaDB and no "
            f"MySQL ({error!r})"
        ) from error
    except RuntimeError as error:  # a package that a way to log in needs is not installed
        raise StoreError(
            f"the database {address.safe} does not let this user in: {error}. Install it, or "
            f"connect by TLS (?ssl-mode=) or by a socket"
        ) from error
    connection = Connection(driven)
    try:
        answers = await connection.ask(_SET_UP)
    except BaseException:
        connection.drop()
        raise
    connection.packet_limit = int(answers[-1].rows[0][0])
    return connection


async def opened(address: MysqlAddress) -> _Driven:
    async with asyncio.timeout(CONNECT_SECONDS):
        return await _driver.connect(
            host=address.host,
            port=address.port,
            user=address.user,
            password=address.password.encode(),
            database=address.database,
            unix_socket=address.socket,
            ssl=_tls_of(address),
            autocommit=True,
            client_flag=_FOUND_ROWS,
            connect_timeout=CONNECT_SECONDS,
            program_name="durable-worker",
        )


def _tls_of(address: MysqlAddress) -> ssl.SSLContext | None:
    if address.ssl_mode == "disabled":
        return None
    try:
        context = ssl.create_default_context(cafile=address.ssl_ca)
        if address.ssl_cert is not None:
            context.load_cert_chain(address.ssl_cert, address.ssl_key)
    except OSError as error:
        raise StoreError(
            f"the database {address.safe} cannot be connected to as the URL says: a file of "
            f"ssl-ca, ssl-cert or ssl-key cannot be used ({error})"
        ) from error
    context.check_hostname = address.ssl_mode == "verify-identity"
    if address.ssl_mode == "required":
        context.verify_mode = ssl.CERT_NONE
    return context
