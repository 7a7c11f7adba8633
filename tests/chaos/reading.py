"""The operators' database as it is, read without them."""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg


@dataclass(frozen=True, slots=True)
class Schema:
    """Of a PostgreSQL database. `url` is what an operator is given, `dsn` what the driver takes."""

    url: str
    dsn: str
    name: str


Database = Path | Schema


def rows_of(database: Database, query: str) -> Sequence[Any]:
    """May be called where no event loop runs. Raises what the driver raises."""
    if isinstance(database, Schema):
        return asyncio.run(_fetched(database, query))
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=1)) as reader:
        return reader.execute(query).fetchall()


def writers_of(database: Database) -> int:
    """How many have not said that they are no more."""
    held = "SELECT count(*) FROM lease WHERE NOT is_released"
    if isinstance(database, Schema):
        held = f"SELECT ({held}) + (SELECT count(*) FROM members)"
    return int(rows_of(database, held)[0][0])


def members_of(database: Schema) -> set[int]:
    """The pids of those who may write."""
    return {int(row[0]) for row in rows_of(database, "SELECT pid FROM members")}


async def _fetched(schema: Schema, query: str) -> Sequence[Any]:
    connection = await asyncpg.connect(schema.dsn, timeout=10)
    try:
        await connection.execute(f'SET search_path = "{schema.name}"')
        return await connection.fetch(query)
    finally:
        await connection.close()
