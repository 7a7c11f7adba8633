"""Everything in a database file, as it was at one moment, a few rows at a time."""

import sqlite3
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from heapq import merge
from itertools import islice
from typing import Any

from durable_worker.stores.dumps import AnyRow, Submitted
from durable_worker.stores.queries import load_statements
from durable_worker.stores.records import Checkpoint, OutboxRow, Run
from durable_worker.stores.sqlite.connection import Connection
from durable_worker.stores.sqlite.rows import (
    checkpoint_of_row,
    letter_of_row,
    run_of_row,
    signal_of_row,
)

ROWS_AT_A_TIME = 500

_sql = load_statements("sqlite", "dump")


async def dumped(connection: Connection) -> AsyncGenerator[Sequence[AnyRow]]:
    """`connection` is used for nothing else: it is within one transaction all the time."""
    rows = await connection.run(_begin)
    while found := await connection.run(lambda _: list(islice(rows, ROWS_AT_A_TIME))):
        yield found


def _begin(database: sqlite3.Connection) -> Iterator[AnyRow]:
    database.execute("BEGIN")
    return _rows(database)


def _rows(database: sqlite3.Connection) -> Iterator[AnyRow]:
    def of(statement: str, make: Callable[[Any], AnyRow]) -> Iterator[AnyRow]:
        return map(make, database.execute(_sql[statement]))

    yield from merge(of("runs", run_of_row), of("checkpoints", checkpoint_of_row), key=_place_of)
    yield from of("signals", signal_of_row)
    yield from of("outbox", lambda row: OutboxRow(*row))
    yield from of("inbox", lambda row: Submitted(row[0]))
    yield from of("dead_letters", letter_of_row)


def _place_of(row: AnyRow) -> tuple[str, int]:
    """A run comes before its checkpoints, in the order of SQLite's own text."""
    if isinstance(row, Run):
        return row.id, -1
    assert isinstance(row, Checkpoint)
    return row.run_id, row.seq
