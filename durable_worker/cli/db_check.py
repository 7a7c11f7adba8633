"""`durable-worker db check`: does the database have the tables that this release needs?"""

import asyncio
from pathlib import Path

from durable_worker.cli.databases import named_database
from durable_worker.cli.options import CheckDb
from durable_worker.cli.schemas import require_sqlite_file, server_version, sqlite_version
from durable_worker.cli.serving import tell
from durable_worker.stores.sqlite.connection import SCHEMA_VERSION as SQLITE_VERSION


def perform(options: CheckDb) -> int:
    where = named_database(options.database)
    if isinstance(where, Path):
        require_sqlite_file(where)
        version, known = sqlite_version(where), SQLITE_VERSION
    else:
        version, known = asyncio.run(server_version(where))
    if version == known:
        tell(f"{where} has schema version {version}, as this release of durable-worker needs it")
        return 0
    tell(_advice(version, known, where=str(where)))
    return 1


def _advice(version: int | None, known: int, *, where: str) -> str:
    if version is None:
        return f"{where} has no tables of durable-worker yet: `durable-worker db upgrade` first"
    told = f"{where} has schema version {version}, this release of durable-worker knows {known}"
    if version > known:
        return f"{told}: upgrade durable-worker, or use another database"
    return f"{told}: stop the operators of the older release, then `durable-worker db upgrade`"
