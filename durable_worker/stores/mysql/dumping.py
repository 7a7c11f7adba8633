"""Everything in a database, as it was at one moment, a few rows at a time."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from durable_worker.stores.dumps import AnyRow, Submitted
from durable_worker.stores.mysql.connection import Connection
from durable_worker.stores.mysql.rows import (
    Found,
    checkpoint_of_row,
    letter_of_row,
    outbox_of_row,
    run_of_row,
    signal_of_row,
)
from durable_worker.stores.mysql.statements import Value, filled, loaded

ROWS_AT_A_TIME = 500

_sql = loaded("dump")

T = TypeVar("T")


async def dumped(connection: Connection) -> AsyncGenerator[Sequence[AnyRow]]:
    """`connection` sees the database as it was when it began."""
    rows: list[AnyRow] = []
    async with aclosing(_everything(connection)) as everything:
        async for row in everything:
            rows.append(row)
            if len(rows) == ROWS_AT_A_TIME:
                yield rows
                rows = []
    yield rows


async def _everything(connection: Connection) -> AsyncGenerator[AnyRow]:
    def by_id(statement: str, make: Callable[[Found], T], *, first: Value = b"") -> Any:
        # Nothing is smaller than the empty text, so the first page has it by being equal.
        return _made(
            connection, statement, make, first=(first, first), key=lambda row: (row[0], None)
        )

    checkpoints = _made(
        connection,
        "checkpoints",
        checkpoint_of_row,
        first=(b"", -1, b""),
        key=lambda row: (row[0], row[1], row[0]),
    )
    checkpoint = await anext(checkpoints, None)
    async for run in by_id("runs", run_of_row):
        yield run
        while checkpoint is not None and checkpoint.run_id <= run.id:
            yield checkpoint
            checkpoint = await anext(checkpoints, None)
    while checkpoint is not None:
        yield checkpoint
        checkpoint = await anext(checkpoints, None)
    async for signal in by_id("signals", signal_of_row):
        yield signal
    async for owed in by_id("outbox", outbox_of_row):
        yield owed
    async for submitted in by_id("inbox", lambda row: Submitted(row[1]), first=0):
        yield submitted
    async for letter in by_id("dead_letters", letter_of_row):
        yield letter


async def _made(
    connection: Connection,
    statement: str,
    make: Callable[[Found], T],
    *,
    first: Sequence[Value],
    key: Callable[[Found], Sequence[Value]],
) -> AsyncGenerator[T]:
    """Page by page, each behind the last row of the one before."""
    last = first
    while True:
        rows = (await connection.ask(filled(_sql[statement], *last, ROWS_AT_A_TIME)))[0].rows
        for row in rows:
            yield make(row)
        if len(rows) < ROWS_AT_A_TIME:
            return
        last = key(rows[-1])
