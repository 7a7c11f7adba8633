"""Many rows with few statements: each costs its execution and a wait for the interpreter."""

import sqlite3
from collections.abc import Iterable
from functools import lru_cache
from itertools import chain

from durable_worker.stores.sqlite.rows import Row

_SIZES = (64, 16, 4, 1)
"""Rows of one statement. Few sizes, so that the prepared statements are found again."""

CACHED_STATEMENTS = 256

LARGE_BYTES = 64 * 1024
"""A prepared statement holds what was last bound to it, so that rows with larger values must not be
spread over many of them."""


def execute_many(database: sqlite3.Connection, statement: str, rows: Iterable[Row]) -> None:
    """Insert rows by a statement that has one list of values. No two rows have one key.

    A NULL is written into the statement, since the driver takes its time over each that it binds.
    """
    shapes: dict[tuple[bool, ...], list[Row]] = {}
    for row in rows:
        if any(isinstance(value, bytearray) and len(value) > LARGE_BYTES for value in row):
            database.execute(statement, row)
            continue
        shapes.setdefault(tuple([value is None for value in row]), []).append(row)
    for shape, alike in shapes.items():
        start = 0
        for size in _SIZES:
            prepared = _prepared(statement, shape, size)
            while len(alike) - start >= size:
                values = chain.from_iterable(alike[start : start + size])
                database.execute(prepared, [value for value in values if value is not None])
                start += size


@lru_cache(maxsize=CACHED_STATEMENTS)
def _prepared(statement: str, shape: tuple[bool, ...], size: int) -> str:
    before, _, rest = statement.partition("VALUES (")
    _, _, after = rest.partition(")")
    row = ", ".join("NULL" if is_null else "?" for is_null in shape)
    return f"{before}VALUES {', '.join([f'({row})'] * size)}{after}"
