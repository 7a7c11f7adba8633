"""Hears at once of what other processes submit, on a connection of its own."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import asyncpg

from durable_worker.stores.address import PostgresAddress
from durable_worker.stores.postgres.database import CONNECT_SECONDS

if TYPE_CHECKING:
    from durable_worker.stores.postgres.database import Row

_CHANNEL = "durable_worker_inbox"
"""That of the statement `submit`, for all schemas of a database."""

RETRY_SECONDS = 5.0
"""From one try that came to nothing to the next."""


class Listening:
    """`heard` is set when something was submitted to this schema, or may have been."""

    def __init__(
        self, address: PostgresAddress, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._address = address
        self._clock = clock
        self._connection: asyncpg.Connection[Row] | None = None
        self._due_at = clock()
        self.heard = asyncio.Event()

    @property
    def is_on(self) -> bool:
        return self._connection is not None and not self._connection.is_closed()

    async def begin(self) -> None:
        """Harmless if it is on, or cannot be: whoever has the inbox looks into it now and then."""
        if self.is_on or self._clock() < self._due_at:
            return
        self._connection = None
        self._due_at = self._clock() + RETRY_SECONDS
        with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            connection = await asyncpg.connect(
                self._address.dsn,
                timeout=CONNECT_SECONDS,
                server_settings={
                    "application_name": "durable-worker",
                    "tcp_keepalives_idle": "10",
                    "tcp_keepalives_interval": "5",
                    "tcp_keepalives_count": "3",
                },
            )
            connection.add_termination_listener(self._hear_of_end)
            try:
                await connection.add_listener(_CHANNEL, self._hear)
            except BaseException:
                connection.terminate()
                raise
            self._connection = connection
            self._due_at = self._clock()

    async def end(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await connection.close(timeout=CONNECT_SECONDS)

    def _hear(self, *told: object) -> None:
        if told[-1] == self._address.schema:
            self.heard.set()

    def _hear_of_end(self, _: object) -> None:
        self.heard.set()
