"""`durable-worker db import`: what `db export` wrote, into a database of whichever kind."""

import asyncio
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from durable_worker.cli.databases import named_database
from durable_worker.cli.options import ImportDb
from durable_worker.cli.serving import tell
from durable_worker.errors import UsageError
from durable_worker.stores.address import Address
from durable_worker.stores.moving import Imported, take_in
from durable_worker.stores.opening import store_at


def perform(options: ImportDb) -> int:
    where = named_database(options.database)
    with ExitStack() as stack:
        source = sys.stdin.buffer
        if options.file is not None:
            source = stack.enter_context(_file(options.file))
        elif sys.stdin.isatty():
            raise UsageError("what is to be imported? --input FILE, or redirect it here.")
        done = asyncio.run(_import(where, source, is_merging=options.is_merging))
    tell(f"{done.rows:,} rows imported into {where}, {done.runs:,} of them runs")
    return 0


async def _import(where: Address, source: BinaryIO, *, is_merging: bool) -> Imported:
    async with store_at(where) as store:
        return await take_in(store, source, is_merging=is_merging)


def _file(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
