"""Everything in a schema, as it was at one moment, a few rows at a time."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar

from durable_worker.stores.dumps import AnyRow, Submitted
from durable_worker.stores.postgres.rows import (
    checkpoint_of_row,
    letter_of_row,
    outbox_of_row,
    run_of_row,
    signal_of_row,
)
from durable_worker.stores.queries import load_statements

if TYPE_CHECKING:
    from durable_worker.stores.postgres.database import Connection

ROWS_AT_A_TIME = 500

_sql = load_statements("postgres", "dump")

T = TypeVar("T")


async def dumped(connection: "Connection") -> AsyncGenerator[Sequence[AnyRow]]:
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        rows: list[AnyRow] = []
        async with aclosing(_everything(connection)) as everything:
            async for row in everything:
                rows.append(row)
                if len(rows) == ROWS_AT_A_TIME:
                    yield rows
                    rows = []
        yield rows


async def _everything(connection: "Connection") -> AsyncGenerator[AnyRow]:
    def of(statement: str, make: Callable[[Any], T]) -> AsyncIterator[T]:
        return _made(connection, _sql[statement], make)

    checkpoints = of("checkpoints", checkpoint_of_row)
    checkpoint = await anext(checkpoints, None)
    async for run in of("runs", run_of_row):
        yield run
        while checkpoint is not None and checkpoint.run_id <= run.id:
            yield checkpoint
            checkpoint = await anext(checkpoints, None)
    while checkpoint is not None:
        yield checkpoint
        checkpoint = await anext(checkpoints, None)
    async for signal in of("signals", signal_of_row):
        yield signal
    async for owed in of("outbox", outbox_of_row):
        yield owed
    async for submitted in of("inbox", lambda row: Submitted(row[0])):
        yield submitted
    async for letter in of("dead_letters", letter_of_row):
        yield letter


async def _made(
    connection: "Connection", statement: str, make: Callable[[Any], T]
) -> AsyncGenerator[T]:
    async for row in connection.cursor(statement, prefetch=ROWS_AT_A_TIME):
        yield make(row)
