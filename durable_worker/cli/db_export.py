"""`durable-worker db export`: everything in a database, as JSON Lines."""

import asyncio
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from durable_worker.cli.databases import named_database
from durable_worker.cli.options import ExportDb
from durable_worker.cli.schemas import require_sqlite_file
from durable_worker.cli.serving import tell
from durable_worker.errors import UsageError
from durable_worker.stores.address import Address
from durable_worker.stores.moving import export
from durable_worker.stores.opening import store_at
from durable_worker.version import VERSION


def perform(options: ExportDb) -> int:
    where = named_database(options.database)
    if isinstance(where, Path):
        require_sqlite_file(where)
    with ExitStack() as stack:
        output = sys.stdout.buffer
        if options.file is not None:
            output = stack.enter_context(_new_file(options.file))
        elif sys.stdout.isatty():
            raise UsageError("an export is not for a terminal: --output FILE, or redirect it.")
        rows = asyncio.run(_export(where, output))
        output.flush()
    tell(f"{rows:,} rows exported from {where}")
    return 0


async def _export(where: Address, output: BinaryIO) -> int:
    async with store_at(where) as store:
        return await export(store, output.write, release=VERSION)


def _new_file(path: Path) -> BinaryIO:
    try:
        return path.open("xb")
    except FileExistsError:
        raise UsageError(f"{path} is there already, and is not overwritten.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}.") from None
