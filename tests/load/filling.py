"""Suspended runs by the hundred thousand: each row is that of a run that was really suspended, with
names and times of its own."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg

from durable_worker.stores.address import PostgresAddress

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

CHUNK = 20_000
CUSTOMERS = 10_000
CUSTOMER = "customer-template"
"""A tag of each template, and an attribute."""

MONTH_MS = 30 * 24 * 3600 * 1000

_RENAMED = "replace({0}, $1, made.id)"
_RENAMED_BYTES = "convert_to(replace(convert_from({0}, 'UTF8'), $1, made.id), 'UTF8')"
_CUSTOMER_OF = f"replace({{0}}, '{CUSTOMER}', 'customer-' || made.n % {CUSTOMERS})"
_ATTRIBUTES = "convert_from(row.search_attributes, 'UTF8')"

_RUNS = {
    "id": "made.id",
    "namespace": "made.namespace",
    "input": _RENAMED_BYTES.format("row.input"),
    "output": _RENAMED_BYTES.format("row.output"),
    "tags": f"ARRAY (SELECT {_CUSTOMER_OF.format('tag')} FROM unnest(row.tags) AS tag)",
    "search_attributes": f"convert_to({_CUSTOMER_OF.format(_ATTRIBUTES)}, 'UTF8')",
    "created_at": "row.created_at - 20 * made.n",
    "updated_at": "row.updated_at - 20 * made.n",
}
_CHECKPOINTS = {
    "run_id": "made.id",
    "name": _RENAMED.format("row.name"),
    "input": _RENAMED_BYTES.format("row.input"),
    "output": _RENAMED_BYTES.format("row.output"),
    "enqueued_at": "row.enqueued_at - 20 * made.n",
    # Spread over a month to come, from tomorrow on.
    "fires_at": f"row.fires_at + (made.n * 7919::bigint * 1000) % {MONTH_MS}",
    "namespace": "CASE WHEN row.namespace IS NOT NULL THEN made.namespace END",
}
_TAGS = {
    "id": "made.id",
    "namespace": "made.namespace",
    "tag": _CUSTOMER_OF.format("row.tag"),
    "created_at": "row.created_at - 20 * made.n",
}
OTHER_TENANT = "acme"
"""Every tenth run is one of this tenant's."""

_MADE = f"""
    SELECT n, replace($1, 'template', lpad(n::text, 7, '0')) AS id,
        CASE WHEN n % 10 = 0 THEN '{OTHER_TENANT}' ELSE 'default' END AS namespace
    FROM generate_series($2::bigint, $3::bigint) AS n
"""


def name_of(template: str, number: int) -> str:
    return template.replace("template", f"{number:07}")


async def multiply(schema: PostgresAddress, templates: Sequence[str], *, each: int) -> None:
    """Numbered copies of these runs, 1 to `each`, with every row that the store keeps of them."""
    async with connected(schema) as connection:
        tables = [
            ("runs", "id", _RUNS),
            ("run_tags", "id", _TAGS),
            ("checkpoints", "run_id", _CHECKPOINTS),
        ]
        statements = [
            await _copying(connection, table, key, changed) for table, key, changed in tables
        ]
        for template in templates:
            for first in range(1, each + 1, CHUNK):
                last = min(first + CHUNK - 1, each)
                async with connection.transaction():
                    for statement in statements:
                        await connection.execute(statement, template, first, last)
        # What autovacuum does to a table that has grown, without waiting for it.
        for table in ("runs", "run_tags", "checkpoints"):
            await connection.execute(f"VACUUM (ANALYZE) {table}")


async def _copying(
    connection: "Connection", table: str, key: str, changed: Mapping[str, str]
) -> str:
    """A column that is not spoken of is as in the template."""
    rows = await connection.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass($1)"
        " AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        table,
    )
    columns = [row[0] for row in rows]
    assert set(changed) <= set(columns), set(changed) - set(columns)
    values = ", ".join(changed.get(column, f"row.{column}") for column in columns)
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} "
        f"FROM ({_MADE}) AS made, {table} AS row WHERE row.{key} = $1"
    )


@asynccontextmanager
async def connected(schema: PostgresAddress) -> "AsyncIterator[Connection]":
    connection = await asyncpg.connect(schema.dsn)
    try:
        await connection.execute(f'SET search_path = "{schema.schema}"')
        yield connection
    finally:
        await asyncio.wait_for(connection.close(), 10)
