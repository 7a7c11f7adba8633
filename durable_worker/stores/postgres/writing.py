"""One transaction of an operator, which rests on what others may have changed meanwhile."""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from durable_worker.errors import StaleRunsError
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.base import Batch
from durable_worker.stores.postgres.rows import text_in
from durable_worker.stores.queries import load_statements

if TYPE_CHECKING:
    from durable_worker.stores.postgres.database import Connection

_sql = load_statements("postgres", "commit") | load_statements("postgres", "shared")


async def written(
    connection: "Connection", batch: Batch, values: Sequence[Any]
) -> tuple[bool, list[str]]:
    """Whether the writer is one still, and the ids of runs that have moved on; unless it is and
    there are none, nothing was written. Raises `StaleRunsError` about signals."""
    if not batch.is_founded or not (batch.signals or batch.waits_begun):
        return await _committed(connection, values)
    async with connection.transaction():
        await _check_signals(connection, batch)
        return await _committed(connection, values)


async def _committed(connection: "Connection", values: Sequence[Any]) -> tuple[bool, list[str]]:
    held, stale = (await connection.fetch(_sql["commit"], *values))[0]
    return bool(held), stale


async def _check_signals(connection: "Connection", batch: Batch) -> None:
    """A signal is kept, or a wait begun, only if nobody has begun or kept its counterpart since.

    Others who do either wait for this transaction to end.
    """
    arrived = set(batch.signals_arrived)
    kept = {
        (each.namespace, each.name)
        for each in batch.signals
        if each.id in arrived and each.consumed_at is None
    }
    # Two locks never have the same name: a namespace is not empty.
    names = {*kept, *batch.waits_begun, *(("", each.id) for each in batch.signals)}
    await connection.execute(_sql["lock_signals"], _keys_of(names))
    resolved = [
        each
        for each in batch.checkpoints
        if each.kind is HistoryKind.SIGNAL and not each.is_pending
    ]
    has_changed = await connection.fetchval(
        _sql["signal_conflicts"],
        [text_in(each) for each in arrived],
        [text_in(each.id) for each in batch.signals if each.id not in arrived],
        *_columns(kept),
        [text_in(each.run_id) for each in resolved],
        [each.seq for each in resolved],
        *_columns(batch.waits_begun),
    )
    if has_changed:
        raise StaleRunsError("another operator has taken or kept one of these signals")


def _columns(pairs: Iterable[tuple[str, str]]) -> tuple[list[str], list[str]]:
    listed = list(pairs)
    return [text_in(each) for each, _ in listed], [text_in(each) for _, each in listed]


def _keys_of(named: Iterable[tuple[str, str]]) -> list[int]:
    """Numbers to lock; the same order for all, so that nobody waits for each other."""
    digests = {
        blake2b(f"{namespace}\0{name}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
        for namespace, name in named
    }
    return sorted(int.from_bytes(each, "big", signed=True) for each in digests)
