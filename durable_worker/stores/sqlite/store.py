"""The store protocol on SQLite: one writing and one reading connection, each with its thread."""

import sqlite3
from collections import Counter
from collections.abc import AsyncGenerator, Collection, Sequence
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from durable_worker.errors import LeaseLostError, StaleRunsError
from durable_worker.protocol.runs import RunQuery
from durable_worker.stores.attributes import wanted_labels
from durable_worker.stores.base import (
    DEFAULT_LIST_LIMIT,
    Batch,
    InboxRow,
    Lease,
    LeaseHolder,
    Owner,
    RunCursor,
    lease_lost_message,
    run_exists_message,
    stored_namespace,
    wanted_statuses,
)
from durable_worker.stores.dumps import AnyRow
from durable_worker.stores.inputs import AnyInput, decode_input, encode_input
from durable_worker.stores.processes import is_gone
from durable_worker.stores.queries import load_statements
from durable_worker.stores.records import (
    LAST_SEQ,
    DeadLetter,
    DueTimer,
    Facets,
    OutboxRow,
    OutStep,
    OutTurn,
    PendingWork,
    Run,
    RunState,
    SignalRecord,
    Waiter,
)
from durable_worker.stores.sqlite.connection import Connection, transaction
from durable_worker.stores.sqlite.dumping import dumped
from durable_worker.stores.sqlite.rows import (
    Row,
    checkpoint_of_row,
    letter_of_row,
    row_of_checkpoint,
    row_of_letter,
    row_of_outbox,
    row_of_run,
    row_of_signal,
    run_of_row,
    signal_of_row,
)
from durable_worker.stores.sqlite.statements import execute_many

_sql = {
    name: statement
    for part in ("runs", "checkpoints", "messages", "lease")
    for name, statement in load_statements("sqlite", part).items()
}


class SqliteStore:
    """A database file; its directories are created. Any number of processes may open it.

    A commit is on the disk when it returns (`synchronous = FULL`).
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self._writer = Connection(self.path, thread="durable-store-writer")
        self._reader = Connection(self.path, thread="durable-store-reader")
        self._seen_version = -1
        self._has_own_news = False

    async def __aenter__(self) -> Self:
        await self._writer.open()
        try:
            await self._reader.open()
        except BaseException:
            await self._writer.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        await self._reader.close()
        await self._writer.close()

    async def acquire_lease(self, owner: Owner, *, now: int, ttl: int) -> Lease | LeaseHolder:
        def acquire(database: sqlite3.Connection) -> Lease | LeaseHolder:
            with transaction(database):
                row: Row | None = database.execute(_sql["get_lease"]).fetchone()
                is_held = row is not None and not row[7]
                if row is not None and is_held:
                    holder = LeaseHolder(Owner(*row[1:6]), row[6])
                    if holder.expires_at > now and not is_gone(holder.owner):
                        return holder
                token = 1 if row is None else int(row[0]) + 1
                process = (owner.host, owner.machine, owner.pid, owner.process_start)
                database.execute(
                    _sql["take_lease"], (token, owner.instance_id, *process, now + ttl)
                )
                return Lease(token, is_takeover=is_held)

        return await self._writer.run(acquire)

    async def renew_lease(self, token: int, *, now: int, ttl: int) -> None:
        def renew(database: sqlite3.Connection) -> None:
            with transaction(database):
                changed = database.execute(_sql["renew_lease"], (now + ttl, token)).rowcount
            if not changed:
                raise self._lease_lost()

        await self._writer.run(renew)

    async def release_lease(self, token: int) -> None:
        await self._writer.run(lambda database: database.execute(_sql["release_lease"], (token,)))

    def _lease_lost(self) -> LeaseLostError:
        return LeaseLostError(lease_lost_message(self._name))

    @property
    def _name(self) -> str:
        return f"the database {str(self.path)!r}"

    async def commit(self, batch: Batch, token: int) -> None:
        def write(database: sqlite3.Connection) -> None:
            with transaction(database):
                if database.execute(_sql["is_lease_held"], (token,)).fetchone() is None:
                    raise self._lease_lost()
                for run_id in batch.absent:
                    if database.execute(_sql["has_run"], (run_id,)).fetchone() is not None:
                        raise StaleRunsError(run_exists_message(self._name, run_id))
                if batch.checkpoints_removed:
                    database.executemany(_sql["remove_checkpoint"], batch.checkpoints_removed)
                for statement, rows in inserts:
                    execute_many(database, _sql[statement], rows)
                if batch.outbox_removed:
                    # JSON text ends for SQLite where a NUL is in it.
                    odd = [key for key in batch.outbox_removed if "\x00" in key]
                    even = [key for key in batch.outbox_removed if key not in odd]
                    database.execute(_sql["remove_outbox"], (_json(even),))
                    database.executemany(_sql["remove_outbox_row"], [(key,) for key in odd])
                if batch.inbox_removed:
                    database.execute(_sql["remove_inbox"], (_json(batch.inbox_removed),))

        inserts = _inserts(batch)
        await self._writer.run(write)
        self._has_own_news |= bool(batch.inbox_added)

    async def load(self, run_id: str) -> RunState | None:
        return (await self.load_many([run_id])).get(run_id)

    async def load_many(self, run_ids: Sequence[str]) -> dict[str, RunState]:
        def read(database: sqlite3.Connection) -> dict[str, RunState]:
            # One snapshot: a run and its checkpoints belong to one commit.
            database.execute("BEGIN")
            try:
                found = (_load(database, run_id) for run_id in run_ids)
                return {state.run.id: state for state in found if state is not None}
            finally:
                database.execute("COMMIT")

        return await self._reader.run(read)

    async def _rows(self, statement: str, values: Sequence[Any] | dict[str, Any] = ()) -> list[Row]:
        return await self._reader.run(
            lambda database: database.execute(_sql[statement], values).fetchall()
        )

    async def due_timers(self, now: int, *, limit: int) -> list[DueTimer]:
        return [DueTimer(*row) for row in await self._rows("due_timers", (now, limit))]

    async def next_timer(self) -> int | None:
        earliest: int | None = (await self._rows("next_timer"))[0][0]
        return earliest

    async def next_wakes(self, run_ids: Sequence[str]) -> dict[str, int]:
        def read(database: sqlite3.Connection) -> dict[str, int]:
            wakes: dict[str, int] = {}
            for run_id in run_ids:
                (wake,) = database.execute(_sql["next_wake"], (run_id,)).fetchone()
                if wake is not None:
                    wakes[run_id] = wake
            return wakes

        return await self._reader.run(read)

    async def waiters(self, namespace: str, signal: str, *, limit: int) -> list[Waiter]:
        return [Waiter(*row) for row in await self._rows("waiters", (signal, namespace, limit))]

    async def buffered_signals(
        self, namespace: str, signal: str, *, limit: int
    ) -> list[SignalRecord]:
        rows = await self._rows("buffered_signals", (namespace, signal, limit))
        return [signal_of_row(row) for row in rows]

    async def signal(self, signal_id: str) -> SignalRecord | None:
        rows = await self._rows("get_signal", (signal_id,))
        return signal_of_row(rows[0]) if rows else None

    async def forget_signals(self, token: int, *, consumed_before: int) -> None:
        await self._forget(token, "forget_signals", (consumed_before,))

    async def _forget(self, token: int, statement: str, values: Row) -> int:
        def forget(database: sqlite3.Connection) -> int:
            with transaction(database):
                if database.execute(_sql["is_lease_held"], (token,)).fetchone() is None:
                    raise self._lease_lost()
                return database.execute(_sql[statement], values).rowcount

        return await self._writer.run(forget)

    async def outbox(self) -> list[OutboxRow]:
        return [OutboxRow(*row) for row in await self._rows("get_outbox")]

    async def pending_work(self) -> PendingWork:
        turns = [OutTurn(*row) for row in await self._rows("turns_out")]
        steps = [OutStep(*row) for row in await self._rows("steps_out")]
        return PendingWork(tuple(turns), tuple(steps))

    async def unserved_runs(self, workflow: str, *, limit: int) -> list[Run]:
        return [run_of_row(row) for row in await self._rows("unserved_runs", (workflow, limit))]

    async def unserved_workflows(self) -> list[str]:
        return [row[0] for row in await self._rows("unserved_workflows")]

    async def submit(self, value: AnyInput) -> int:
        def insert(database: sqlite3.Connection) -> int:
            row_id = database.execute(_sql["put_inbox"], (body,)).lastrowid
            assert row_id is not None
            return row_id

        body = encode_input(value)
        row_id = await self._writer.run(insert)
        # The database tells a connection about the changes of others only.
        self._has_own_news = True
        return row_id

    async def inbox(self, *, after: int, limit: int) -> list[InboxRow]:
        rows = await self._rows("get_inbox", (after, limit))
        return [InboxRow(row[0], _input_of(row[1]), row[1]) for row in rows]

    async def has_news(self) -> bool:
        def version(database: sqlite3.Connection) -> int:
            return int(database.execute("PRAGMA data_version").fetchone()[0])

        # A connection's own writes do not change its data version.
        has_own_news, self._has_own_news = self._has_own_news, False
        seen, self._seen_version = self._seen_version, await self._writer.run(version)
        return has_own_news or seen != self._seen_version

    async def list_runs(self, query: RunQuery, *, after: RunCursor | None = None) -> list[Run]:
        window = {
            "after_created": None if after is None else after.created_at,
            "after_id": None if after is None else after.run_id,
            "limit": min(query.limit or DEFAULT_LIST_LIMIT, LAST_SEQ),
            "offset": min(query.offset or 0, LAST_SEQ),
        }
        rows = await self._rows("list_runs", {**_filters(query), **window})
        return [run_of_row(row) for row in rows]

    async def facets(self, query: RunQuery) -> Facets:
        statuses: Counter[str] = Counter()
        workflows: Counter[str] = Counter()
        for status, workflow, count in await self._rows("count_runs", _filters(query)):
            statuses[status] += count
            workflows[workflow] += count
        return Facets(dict(statuses), dict(workflows))

    async def dead_letters(
        self,
        *,
        limit: int,
        namespace: str | None = None,
        run_id: str | None = None,
        after: str | None = None,
    ) -> list[DeadLetter]:
        asked = {"namespace": namespace, "run_id": run_id, "after": after, "limit": limit}
        return [letter_of_row(row) for row in await self._rows("list_dead_letters", asked)]

    async def dead_letter(self, letter_id: str) -> DeadLetter | None:
        rows = await self._rows("get_dead_letter", (letter_id,))
        return letter_of_row(rows[0]) if rows else None

    async def dump(self) -> AsyncGenerator[Sequence[AnyRow]]:
        connection = Connection(self.path, thread="durable-store-dump")
        await connection.open()
        try:
            async for rows in dumped(connection):
                yield rows
        finally:
            await connection.close()

    async def forget_dead_letters(self, token: int, *, received_before: int, kept: int) -> int:
        return await self._forget(token, "forget_dead_letters", (received_before, kept))


def _inserts(batch: Batch) -> list[tuple[str, Collection[Row]]]:
    """Rows by key: of two that are equal by it, the later one counts."""
    runs = {each.id: row_of_run(each) for each in batch.runs}
    checkpoints = {(each.run_id, each.seq): row_of_checkpoint(each) for each in batch.checkpoints}
    signals = {each.id: row_of_signal(each) for each in batch.signals}
    outbox = {each.key: row_of_outbox(each) for each in batch.outbox_added}
    letters = {each.id: row_of_letter(each) for each in batch.dead_letters}
    return [
        ("put_run", runs.values()),
        ("put_checkpoint", checkpoints.values()),
        ("put_signal", signals.values()),
        ("put_outbox", outbox.values()),
        ("put_inbox", [(encode_input(each),) for each in batch.inbox_added]),
        ("put_dead_letter", letters.values()),
    ]


def _json(value: str | Sequence[str | int]) -> str:
    return msgspec.json.encode(value).decode()


def _load(database: sqlite3.Connection, run_id: str) -> RunState | None:
    row = database.execute(_sql["get_run"], (run_id,)).fetchone()
    if row is None:
        return None
    rows = database.execute(_sql["get_checkpoints"], (run_id,))
    return RunState(run_of_row(row), map(checkpoint_of_row, rows))


def _input_of(body: bytes) -> AnyInput | None:
    try:
        return decode_input(body)
    except msgspec.MsgspecError:
        return None


def _filters(query: RunQuery) -> dict[str, Any]:
    statuses, labels = wanted_statuses(query), wanted_labels(query)
    return {
        "workflow": query.workflow,
        "statuses": None if statuses is None else _json(statuses),
        "labels": _json([_json(each) for each in labels]) if labels else None,
        "namespace": None if query.namespace is None else stored_namespace(query.namespace),
    }
