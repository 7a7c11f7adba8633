"""Schemas with our tables, for one test after the other."""

from collections.abc import Iterator
from contextlib import contextmanager

from durable_worker.stores.address import PostgresAddress, parse_address
from durable_worker.stores.migrations.upgrading import upgrade
from tests.database.choice import Postgres, new_schema
from tests.servers import completed

_EMPTY = """
SET search_path = "{schema}";
SET client_min_messages = warning;
TRUNCATE runs, run_tags, checkpoints, signals, outbox, inbox, dead_letters, members;
UPDATE lease SET token = 0, writer = 0, is_released = true;
UPDATE inbox_head SET last = 0;
"""


@contextmanager
def made_schema(postgres: Postgres) -> Iterator[PostgresAddress]:
    """A schema as `durable-worker db upgrade` makes it, dropped afterwards."""
    address = parse_address(postgres.at(new_schema()))
    try:
        completed(upgrade(address))
        yield address
    finally:
        postgres.execute(f'DROP SCHEMA IF EXISTS "{address.schema}" CASCADE')


def empty(postgres: Postgres, address: PostgresAddress) -> None:
    """Nothing may be connected that is in the middle of something."""
    postgres.execute(_EMPTY.format(schema=address.schema))
