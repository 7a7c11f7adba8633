"""Which MariaDB or MySQL a test session uses, and databases of its own on it."""

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from durable_worker.errors import StoreError
from durable_worker.stores.address import MysqlAddress, parse_mysql_address
from durable_worker.stores.migrations.upgrading_mysql import upgrade
from durable_worker.stores.mysql.connection import connected
from durable_worker.stores.mysql.errors import translated_errors
from tests.database.mariadb import DEFAULT_PORT, MariadbServer, require_mariadb
from tests.servers import ServerUnavailableError, completed

URL_VARIABLE = "DURABLE_TEST_MYSQL_URL"
PORT_VARIABLE = "DURABLE_TEST_MYSQL_PORT"
"""Port that is probed before a server is started; setting it to a free one forces a private one."""

_TABLES = ("runs", "run_tags", "checkpoints", "signals", "outbox", "inbox", "dead_letters")
_EMPTY = ";".join(
    (
        *(f"DELETE FROM durable_{each}" for each in _TABLES),
        "UPDATE durable_lease SET token = 0, writer = 0, is_released = 1",
        "UPDATE durable_inbox_head SET last = 0",
    )
)


@dataclass(frozen=True, slots=True)
class Mysql:
    """A server on which a test session makes databases of its own."""

    url: str

    def at(self, database: str, *, user: str | None = None) -> str:
        parts = urlsplit(self.url)
        netloc = parts.netloc if user is None else f"{user}@{parts.netloc.rpartition('@')[2]}"
        return urlunsplit(parts._replace(netloc=netloc, path=f"/{database}"))

    def execute(self, statements: str) -> list[Any]:
        """The rows of the last of them."""
        return completed(_execute(self.url, statements))


def new_database() -> str:
    return f"durable_test_{secrets.token_hex(6)}"


@contextmanager
def open_mysql(environment: Mapping[str, str] = os.environ) -> Iterator[Mysql]:
    """The server of `DURABLE_TEST_MYSQL_URL`, else the one on the default port, else a private one.
    Raises `ServerUnavailableError`."""
    port = int(environment.get(PORT_VARIABLE, DEFAULT_PORT))
    stated = environment.get(URL_VARIABLE)
    url = stated or f"mysql://root@127.0.0.1:{port}/test"
    why_not = completed(_refusal(url))
    if why_not is None:
        yield Mysql(url)
    elif stated:
        raise ServerUnavailableError(
            f"the database of {URL_VARIABLE} cannot be used: {why_not}. Correct the variable, or "
            f"unset it and the tests find or start a MariaDB."
        )
    else:
        with MariadbServer(programs=require_mariadb(port)) as server:
            yield Mysql(server.url())


@contextmanager
def new_empty_database(server: Mysql) -> Iterator[MysqlAddress]:
    """Dropped afterwards."""
    name = new_database()
    server.execute(f"CREATE DATABASE {name}")
    try:
        yield parse_mysql_address(server.at(name))
    finally:
        server.execute(f"DROP DATABASE IF EXISTS {name}")


@contextmanager
def made_database(server: Mysql) -> Iterator[MysqlAddress]:
    """One with our tables, as `durable-worker db upgrade` makes them; dropped afterwards."""
    with new_empty_database(server) as address:
        completed(upgrade(address))
        yield address


def empty_tables(address: MysqlAddress) -> None:
    """Nothing may be connected that is in the middle of something."""
    completed(_execute(address.url, _EMPTY))


async def _refusal(url: str) -> str | None:
    """Why no database can be made there; None if one can."""
    name = new_database()
    try:
        await _execute(url, f"CREATE DATABASE {name}; DROP DATABASE {name}")
    except StoreError as error:
        return str(error)
    return None


async def _execute(url: str, statements: str) -> list[Any]:
    address = parse_mysql_address(url)
    with translated_errors(address):
        connection = await connected(address)
        try:
            # What a test left in the middle of something must not hold up the session.
            await connection.ask(b"SET SESSION lock_wait_timeout = 30")
            return list((await connection.ask(statements.encode()))[-1].rows)
        finally:
            await connection.close()
