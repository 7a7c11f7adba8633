"""What a store holds, out to lines and in from lines: between databases of every kind."""

import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from itertools import islice

import msgspec

from durable_worker.errors import PayloadError, StoreError
from durable_worker.stores.base import Batch, LeaseHolder
from durable_worker.stores.dumps import (
    AnyRow,
    DumpableStore,
    Reader,
    Submitted,
    end_line,
    header_line,
    line_of,
)
from durable_worker.stores.inputs import AnyInput, decode_input
from durable_worker.stores.processes import this_process
from durable_worker.stores.records import Checkpoint, DeadLetter, OutboxRow, Run, SignalRecord

ROWS_AT_A_TIME = 1_000
BYTES_AT_A_TIME = 8 * 1024 * 1024
LEASE_MS = 60_000


async def export(store: DumpableStore, write: Callable[[bytes], object], *, release: str) -> int:
    """Write everything as it is at this moment, but for the lease; returns how many rows."""
    write(header_line(release))
    count = 0
    async with aclosing(store.dump()) as pages:
        async for page in pages:
            count += len(page)
            write(b"".join(map(line_of, page)))
    write(end_line(count))
    return count


@dataclass(slots=True)
class Imported:
    runs: int = 0
    rows: int = 0


async def take_in(
    store: DumpableStore, lines: Iterable[bytes], *, is_merging: bool = False
) -> Imported:
    """Read what `export` wrote. Without `is_merging` the store must be empty; with it, runs of the
    same id are replaced, with all of their history.

    Raises `PayloadError` for lines that cannot be used, and `StoreError`; what was committed until
    then stays.
    """
    async with _lease_of(store) as token:
        if not is_merging and await _holds_something(store):
            raise StoreError(
                "the database that is to be imported into is not empty: take another one, or have "
                "both merged (--merge)"
            )
        done = Imported()
        try:
            await _take_in(store, lines, done, token=token, is_merging=is_merging)
        except PayloadError as error:
            there = f"{done.rows} rows that came before are in the database"
            raise PayloadError(error.what, f"{error.reason}; {there}") from error
        return done


async def _take_in(
    store: DumpableStore, lines: Iterable[bytes], done: Imported, *, token: int, is_merging: bool
) -> None:
    reader, rest = Reader(), iter(lines)
    while page := _page(rest):
        rows = [row for row in map(reader.read, page) if row is not None]
        await store.renew_lease(token, now=_now(), ttl=LEASE_MS)
        await store.commit(await _batch_of(store, rows, is_merging=is_merging), token)
        done.rows += len(rows)
        done.runs += sum(isinstance(row, Run) for row in rows)
    reader.finish()


def _page(lines: Iterator[bytes]) -> list[bytes]:
    page: list[bytes] = []
    size = 0
    for line in islice(lines, ROWS_AT_A_TIME):
        page.append(line)
        size += len(line)
        if size >= BYTES_AT_A_TIME:
            break
    return page


async def _batch_of(store: DumpableStore, rows: Sequence[AnyRow], *, is_merging: bool) -> Batch:
    runs = [row for row in rows if isinstance(row, Run)]
    replaced = await store.load_many([run.id for run in runs]) if is_merging else {}
    return Batch(
        runs=runs,
        checkpoints=[row for row in rows if isinstance(row, Checkpoint)],
        checkpoints_removed=[
            (run_id, seq) for run_id, state in replaced.items() for seq in state.checkpoints
        ],
        signals=[row for row in rows if isinstance(row, SignalRecord)],
        outbox_added=[row for row in rows if isinstance(row, OutboxRow)],
        inbox_added=[_input_in(row) for row in rows if isinstance(row, Submitted)],
        dead_letters=[row for row in rows if isinstance(row, DeadLetter)],
    )


def _input_in(row: Submitted) -> AnyInput:
    try:
        return decode_input(row.body)
    except msgspec.MsgspecError as error:
        raise PayloadError(
            "an input in the export", f"this release of durable-worker cannot read it ({error})"
        ) from None


async def _holds_something(store: DumpableStore) -> bool:
    async with aclosing(store.dump()) as pages:
        async for page in pages:
            if page:
                return True
    return False


@asynccontextmanager
async def _lease_of(store: DumpableStore) -> AsyncGenerator[int]:
    lease = await store.acquire_lease(this_process("import"), now=_now(), ttl=LEASE_MS)
    if isinstance(lease, LeaseHolder):
        owner = lease.owner
        raise StoreError(
            f"an operator works on the database (process {owner.pid} on {owner.host}): stop it "
            f"first. If it has crashed, its lease ends by itself within a minute"
        )
    try:
        yield lease.token
    finally:
        await store.release_lease(lease.token)


def _now() -> int:
    return time.time_ns() // 1_000_000
