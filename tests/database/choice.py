"""Which PostgreSQL a test session uses, and in which corner of it."""

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import asyncpg

from tests.database.programs import require_programs
from tests.database.server import DEFAULT_PORT, PostgresServer
from tests.servers import ServerUnavailableError, completed

URL_VARIABLE = "DURABLE_TEST_POSTGRES_URL"
PORT_VARIABLE = "DURABLE_TEST_POSTGRES_PORT"
"""Port that is probed before a server is started; setting it to a free one forces a private one."""


@dataclass(frozen=True, slots=True)
class Postgres:
    """A database in which a test session makes schemas of its own."""

    url: str

    def at(self, schema: str) -> str:
        return f"{self.url}?schema={schema}"

    def execute(self, statements: str) -> None:
        completed(_execute(self.url, statements))


def new_schema() -> str:
    return f"durable_test_{secrets.token_hex(6)}"


@contextmanager
def open_postgres(environment: Mapping[str, str] = os.environ) -> Iterator[Postgres]:
    """The database of `DURABLE_TEST_POSTGRES_URL`, else `test` on the default port, else one of a
    private server. Raises `ServerUnavailableError`."""
    port = int(environment.get(PORT_VARIABLE, DEFAULT_PORT))
    stated = environment.get(URL_VARIABLE)
    url = stated or f"postgresql://postgres@127.0.0.1:{port}/test"
    why_not = completed(_refusal(url))
    if why_not is None:
        yield Postgres(url)
    elif stated:
        raise ServerUnavailableError(
            f"the database of {URL_VARIABLE} cannot be used: {why_not}. Correct the variable, or "
            f"unset it and the tests find or start a PostgreSQL."
        )
    else:
        with PostgresServer(programs=require_programs(port)) as server:
            yield Postgres(server.url())


async def _refusal(url: str) -> str | None:
    """Why no schema can be made there; None if one can."""
    try:
        connection = await asyncpg.connect(url, timeout=5)
        try:
            may = await connection.fetchval(
                "SELECT has_database_privilege(current_database(), 'CREATE')"
            )
        finally:
            await connection.close()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return str(error) or type(error).__name__
    return None if may else "the user may not create schemas in it"


async def _execute(url: str, statements: str) -> None:
    # A connection that a test left in the middle of something must not hold up the session.
    connection = await asyncpg.connect(
        url, timeout=10, command_timeout=60, server_settings={"lock_timeout": "30s"}
    )
    try:
        await connection.execute(statements)
    finally:
        await connection.close()
