"""What the scripts have in common, whichever database they run on."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from durable_worker.errors import StoreError
from durable_worker.stores.base import Owner
from durable_worker.stores.processes import is_gone

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Upgrade:
    """From which version (None: there were no tables) to which."""

    before: int | None
    after: int


def run_scripts(
    connection: Connection, folder: str, *, table: str, schema: str | None = None
) -> None:
    """Those of this folder that have not run yet, by the version in `table`."""
    config = Config()
    config.set_main_option("script_location", _option(_HERE))
    config.set_main_option("version_locations", _option(_HERE / folder))
    config.set_main_option("path_separator", "newline")
    config.attributes.update(connection=connection, table=table, schema=schema)
    command.upgrade(config, "head")


def _option(path: Path) -> str:
    return str(path).replace("%", "%%")


def refuse_if_any_lives(operators: Iterable[Any], *, database: str) -> None:
    """Raises `StoreError`. `operators`: the columns of an `Owner` in each row."""
    for row in operators:
        owner = Owner(*row)
        if not is_gone(owner):
            raise StoreError(
                f"an operator of an older release works on the database {database} "
                f"(process {owner.pid} on {owner.host}): stop that one first"
            )
