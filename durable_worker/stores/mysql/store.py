"""The store protocol on MariaDB and MySQL: a commit is one packet of statements."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Sequence
from operator import itemgetter
from types import TracebackType
from typing import Any, Self

import msgspec

from durable_worker.errors import LeaseLostError, StaleRunsError, StoreError
from durable_worker.protocol.runs import RunQuery
from durable_worker.stores.address import MysqlAddress, parse_mysql_address
from durable_worker.stores.base import (
    Batch,
    InboxRow,
    Lease,
    LeaseHolder,
    Owner,
    RunCursor,
    lease_lost_message,
)
from durable_worker.stores.dumps import AnyRow
from durable_worker.stores.inputs import AnyInput, decode_input, encode_input
from durable_worker.stores.mysql import letters
from durable_worker.stores.mysql.connection import Answer, Connection
from durable_worker.stores.mysql.database import Database
from durable_worker.stores.mysql.dumping import dumped
from durable_worker.stores.mysql.errors import is_certain, is_conflict, is_stale, is_unfulfilled
from durable_worker.stores.mysql.listing import count_statement, list_statement, needs_namespaces
from durable_worker.stores.mysql.rows import (
    checkpoint_of_row,
    letter_of_row,
    outbox_of_row,
    run_of_row,
    signal_of_row,
    tags_out,
)
from durable_worker.stores.mysql.statements import Value, filled, loaded, packets
from durable_worker.stores.mysql.writing import (
    BEGIN,
    COMMIT,
    Label,
    may_change_labels,
    statements_of,
    submissions,
)
from durable_worker.stores.processes import is_gone
from durable_worker.stores.records import (
    Checkpoint,
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

ATTEMPTS = 3
"""At a transaction that others are in the way of."""

_sql = loaded("runs", "checkpoints", "messages", "lease")


class MysqlStore:
    """A MariaDB or MySQL database with the tables that `durable-worker db upgrade` makes.

    `address` is a URL or what `parse_mysql_address` made of one. A commit is as durable as the
    server's `innodb_flush_log_at_trx_commit` makes it.

    Whoever writes is told apart by the token of the lease and, within one tenure, by a number that
    rises each time it is unknown what became of a commit. So a packet that was sent before, and
    that the server comes to only later, finds that it may not write any more; and what is read
    after such a commit is what it left.
    """

    def __init__(self, address: str | MysqlAddress) -> None:
        self.address = parse_mysql_address(address) if isinstance(address, str) else address
        self._database = Database(self.address)
        self._token = 0
        self._writer = 0
        self._is_in_doubt = False
        self._fencing = asyncio.Lock()
        self._seen = -1

    async def __aenter__(self) -> Self:
        await self._database.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        await self._database.close()

    # The lease

    async def acquire_lease(self, owner: Owner, *, now: int, ttl: int) -> Lease | LeaseHolder:
        """Waits for a commit that is under way."""
        async with self._database.connection() as connection:
            outcome = await _acquired(connection, owner, now=now, ttl=ttl)
        if isinstance(outcome, Lease):
            self._token, self._writer, self._is_in_doubt = outcome.token, 0, False
        return outcome

    async def renew_lease(self, token: int, *, now: int, ttl: int) -> None:
        if not (await self._database.ask(_sql["renew_lease"], now + ttl, token)).count:
            raise self._lease_lost()

    async def release_lease(self, token: int) -> None:
        await self._database.ask(_sql["release_lease"], token)

    def _lease_lost(self) -> LeaseLostError:
        return LeaseLostError(lease_lost_message(f"the database {self.address.safe}"))

    async def _writer_of(self, token: int) -> int:
        if token != self._token or self._is_in_doubt:
            async with self._fencing:
                if token != self._token or self._is_in_doubt:
                    await self._fence(token)
        return self._writer

    async def _fence(self, token: int) -> None:
        """Shut out packets that were sent before; waits for one that is under way."""
        answers = await self._transacted(
            self._packets([filled(_sql["fence"], token), _sql["writer"]])
        )
        if not answers[1].count:
            raise self._lease_lost()
        self._token, self._writer, self._is_in_doubt = token, answers[2].rows[0][0], False

    async def _certain(self) -> None:
        """What is read next is as the last commit left it, also if nobody knows what became of
        that."""
        if self._is_in_doubt:
            try:
                await self._writer_of(self._token)
            except LeaseLostError:
                self._is_in_doubt = False  # whoever took the lease has waited for it

    async def _read(self, statement: str, *values: Value) -> Sequence[Any]:
        await self._certain()
        return (await self._database.ask(_sql[statement], *values)).rows

    # Writing

    async def commit(self, batch: Batch, token: int) -> None:
        writer = await self._writer_of(token)
        labels = await self._labels_of(may_change_labels(batch))
        with self._database.translated():
            changes = list(statements_of(batch, labels))
        sent = self._packets([filled(_sql["hold_writer"], token, writer), *changes])
        try:
            await self._transacted(sent)
        except (LeaseLostError, StaleRunsError):
            raise
        except BaseException as error:
            self._is_in_doubt = error.__cause__ is None or not is_certain(error.__cause__)
            raise

    async def _labels_of(self, run_ids: Sequence[str]) -> list[Label]:
        rows = await self._read("tags_of_runs", run_ids) if run_ids else ()
        return [
            (namespace.decode(), tag, created_at, run_id.decode())
            for namespace, tags, created_at, run_id in rows
            for tag in tags_out(tags)
        ]

    def _packets(self, statements: Iterable[bytes]) -> list[bytes]:
        return packets(
            [BEGIN, *statements, COMMIT],
            limit=self._database.packet_limit,
            database=f"the database {self.address.safe}",
        )

    async def _transacted(self, sent: Sequence[bytes]) -> list[Answer]:
        """One transaction, once more if others were in its way. Raises `LeaseLostError` and
        `StaleRunsError`."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with self._database.connection() as connection:
                    return [answer for each in sent for answer in await connection.ask(each)]
            except StoreError as error:
                if is_unfulfilled(error.__cause__):
                    raise self._lease_lost() from error
                if is_stale(error.__cause__):
                    known = f"the database {self.address.safe} has one of these runs already"
                    raise StaleRunsError(known) from error
                if not is_conflict(error.__cause__) or attempt == ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    async def submit(self, value: AnyInput) -> int:
        body = encode_input(value)
        sent = self._packets([*submissions([body]), _sql["last_inbox_id"]])
        return int((await self._transacted(sent))[-2].rows[0][0])

    async def forget_signals(self, token: int, *, consumed_before: int) -> None:
        hold = filled(_sql["hold_lease"], token)
        await self._transacted(
            self._packets([hold, filled(_sql["forget_signals"], consumed_before)])
        )

    async def forget_dead_letters(self, token: int, *, received_before: int, kept: int) -> int:
        hold = filled(_sql["hold_lease"], token)
        try:
            async with self._database.connection() as connection:
                await connection.ask(b";".join((BEGIN, hold)))
                count = await letters.forget(connection, received_before=received_before, kept=kept)
                await connection.ask(COMMIT)
        except StoreError as error:
            if is_unfulfilled(error.__cause__):
                raise self._lease_lost() from error
            raise
        return count

    # Reading

    async def load(self, run_id: str) -> RunState | None:
        return (await self.load_many([run_id])).get(run_id)

    async def load_many(self, run_ids: Sequence[str]) -> dict[str, RunState]:
        if not run_ids:
            return {}
        await self._certain()
        with self._database.translated():
            asked = [filled(_sql[each], run_ids) for each in ("get_runs", "get_checkpoints")]
        runs, checkpoints = await self._database.ask_together(*asked)
        return _states_in(runs, checkpoints)

    async def due_timers(self, now: int, *, limit: int) -> list[DueTimer]:
        rows = await self._read("due_timers", now, limit)
        return [DueTimer(run_id.decode(), seq, fires_at) for run_id, seq, fires_at in rows]

    async def next_timer(self) -> int | None:
        earliest: int | None = (await self._read("next_timer"))[0][0]
        return earliest

    async def next_wakes(self, run_ids: Sequence[str]) -> dict[str, int]:
        rows = await self._read("next_wakes", run_ids) if run_ids else ()
        return {run_id.decode(): fires_at for run_id, fires_at in rows}

    async def waiters(self, namespace: str, signal: str, *, limit: int) -> list[Waiter]:
        rows = await self._read("waiters", namespace, signal, limit)
        return [Waiter(run_id.decode(), seq) for run_id, seq in rows]

    async def buffered_signals(
        self, namespace: str, signal: str, *, limit: int
    ) -> list[SignalRecord]:
        rows = await self._read("buffered_signals", namespace, signal, limit)
        return [signal_of_row(row) for row in rows]

    async def signal(self, signal_id: str) -> SignalRecord | None:
        rows = await self._read("get_signal", signal_id)
        return signal_of_row(rows[0]) if rows else None

    async def outbox(self) -> list[OutboxRow]:
        return [outbox_of_row(row) for row in await self._read("get_outbox")]

    async def pending_work(self) -> PendingWork:
        turns = [OutTurn(*map(bytes.decode, row)) for row in await self._read("turns_out")]
        steps = [
            OutStep(run_id.decode(), seq, attempt, recoveries)
            for run_id, seq, attempt, recoveries in await self._read("steps_out")
        ]
        return PendingWork(tuple(turns), tuple(steps))

    async def unserved_runs(self, workflow: str, *, limit: int) -> list[Run]:
        return [run_of_row(row) for row in await self._read("unserved_runs", workflow, limit)]

    async def unserved_workflows(self) -> list[str]:
        return [row[0].decode() for row in await self._read("unserved_workflows")]

    async def inbox(self, *, after: int, limit: int) -> list[InboxRow]:
        rows = await self._read("get_inbox", after, limit)
        return [InboxRow(row_id, _input_of(body), body) for row_id, body in rows]

    async def has_news(self) -> bool:
        seen, self._seen = self._seen, (await self._database.ask(_sql["last_inbox_id"])).rows[0][0]
        return seen != self._seen

    async def list_runs(self, query: RunQuery, *, after: RunCursor | None = None) -> list[Run]:
        namespaces: list[str] = []
        with self._database.translated():
            if needs_namespaces(query):
                rows = await self._database.screen(_sql["namespaces"])
                namespaces = [row[0].decode() for row in rows]
            statement = list_statement(query, after, namespaces)
        found = [] if statement is None else list(await self._database.screen(statement))
        found.sort(key=itemgetter(13, 0), reverse=True)
        return [run_of_row(row) for row in found]

    async def facets(self, query: RunQuery) -> Facets:
        statuses: Counter[str] = Counter()
        workflows: Counter[str] = Counter()
        with self._database.translated():
            statement = count_statement(query)
        for status, workflow, count in await self._database.screen(statement):
            statuses[status.decode()] += count
            workflows[workflow.decode()] += count
        return Facets(dict(statuses), dict(workflows))

    async def dead_letters(
        self,
        *,
        limit: int,
        namespace: str | None = None,
        run_id: str | None = None,
        after: str | None = None,
    ) -> list[DeadLetter]:
        with self._database.translated():
            statement = letters.letters_statement(
                limit=limit, namespace=namespace, run_id=run_id, after=after
            )
        return [letter_of_row(row) for row in await self._database.screen(statement)]

    async def dead_letter(self, letter_id: str) -> DeadLetter | None:
        rows = await self._read("get_dead_letter", letter_id)
        return letter_of_row(rows[0]) if rows else None

    async def dump(self) -> AsyncGenerator[Sequence[AnyRow]]:
        async with self._database.snapshot() as connection:
            async for rows in dumped(connection):
                yield rows


async def _acquired(
    connection: Connection, owner: Owner, *, now: int, ttl: int
) -> Lease | LeaseHolder:
    answers = await connection.ask(b";".join((BEGIN, _sql["lock_lease"])))
    token, *process, expires_at, is_released = answers[1].rows[0]
    if not is_released:
        holder = LeaseHolder(_owner_in(process), expires_at)
        if expires_at > now and not is_gone(holder.owner):
            await connection.ask(b"ROLLBACK")
            return holder
    values = (owner.instance_id, owner.host, owner.machine, owner.pid, owner.process_start)
    take = filled(_sql["take_lease"], token + 1, *values, now + ttl)
    await connection.ask(b";".join((take, COMMIT)))
    return Lease(token + 1, is_takeover=not is_released)


def _owner_in(row: Sequence[Any]) -> Owner:
    instance_id, host, machine, pid, process_start = row
    started = None if process_start is None else process_start.decode()
    return Owner(instance_id.decode(), host.decode(), machine.decode(), pid, started)


def _states_in(runs: Iterable[Any], checkpoints: Iterable[Any]) -> dict[str, RunState]:
    histories: dict[str, list[Checkpoint]] = {}
    for row in checkpoints:
        found = checkpoint_of_row(row)
        histories.setdefault(found.run_id, []).append(found)
    states = (run_of_row(row) for row in runs)
    return {run.id: RunState(run, histories.get(run.id, ())) for run in states}


def _input_of(body: bytes) -> AnyInput | None:
    try:
        return decode_input(body)
    except msgspec.MsgspecError:
        return None
