"""The store protocol on PostgreSQL: a commit is one statement, whatever it changes."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import msgspec

from durable_worker.errors import LeaseLostError, StaleRunsError
from durable_worker.protocol.runs import RunQuery
from durable_worker.stores.address import PostgresAddress, parse_address
from durable_worker.stores.base import (
    Batch,
    InboxRow,
    Lease,
    LeaseHolder,
    Newer,
    Owner,
    RunCursor,
    lease_lost_message,
    membership_lost_message,
)
from durable_worker.stores.dumps import AnyRow
from durable_worker.stores.inputs import AnyInput, decode_input, encode_input
from durable_worker.stores.postgres.batches import parameters_of
from durable_worker.stores.postgres.database import Database
from durable_worker.stores.postgres.dumping import dumped
from durable_worker.stores.postgres.errors import is_certain, is_conflict
from durable_worker.stores.postgres.listening import Listening
from durable_worker.stores.postgres.listing import count_statement, list_statement
from durable_worker.stores.postgres.membership import Membership
from durable_worker.stores.postgres.rows import (
    checkpoint_of_row,
    letter_of_row,
    outbox_of_row,
    revision_of_row,
    run_of_row,
    signal_of_row,
    text_in,
    text_out,
)
from durable_worker.stores.postgres.writing import written
from durable_worker.stores.queries import load_statements
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

_sql = {
    name: statement
    for part in ("runs", "checkpoints", "messages", "lease", "shared")
    for name, statement in load_statements("postgres", part).items()
}


class PostgresStore:
    """A schema of a PostgreSQL database, made by `durable-worker db upgrade`.

    `address` is a URL or what `parse_address` made of one. A commit is as durable as the server's
    `synchronous_commit` makes it.

    Whoever writes is told apart by the token of the lease and, within one tenure, by a number that
    rises each time it is unknown what became of a commit. So a statement that was sent before, and
    that the server comes to only later, finds that it may not write any more; and what is read
    after such a commit is what it left.
    """

    def __init__(self, address: str | PostgresAddress) -> None:
        self.address = parse_address(address) if isinstance(address, str) else address
        self._database = Database(self.address)
        self._membership = Membership(self._database)
        self._listening = Listening(self.address)
        self._is_member = False
        self._has_lost_inbox = False
        self._token = 0
        self._writer = 0
        self._is_in_doubt = False
        self._fencing = asyncio.Lock()
        # Counts read all that they count: pages must not wait behind them for a connection.
        self._counting = asyncio.Lock()
        self._seen = ""

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
        await self._listening.end()
        await self._database.close()

    # The lease

    async def acquire_lease(self, owner: Owner, *, now: int, ttl: int) -> Lease | LeaseHolder:
        return self._began(await self._membership.acquire_lease(owner, now=now, ttl=ttl))

    async def join(self, owner: Owner, *, now: int, ttl: int) -> Lease | LeaseHolder:
        outcome = self._began(await self._membership.join(owner, now=now, ttl=ttl))
        self._is_member = isinstance(outcome, Lease)
        return outcome

    def _began(self, outcome: Lease | LeaseHolder) -> Lease | LeaseHolder:
        if isinstance(outcome, Lease):
            self._token, self._writer, self._is_in_doubt = outcome.token, 0, False
            self._is_member = False
        return outcome

    async def renew_lease(self, token: int, *, now: int, ttl: int) -> None:
        if not await self._database.fetch(_sql["renew_lease"], token, now + ttl, ttl):
            raise self._lease_lost()

    async def release_lease(self, token: int) -> None:
        await self._database.fetch(_sql["release_lease"], token)

    def _lease_lost(self) -> LeaseLostError:
        message = membership_lost_message if self._is_member else lease_lost_message
        return LeaseLostError(message(f"the database {self.address.safe}"))

    async def _writer_of(self, token: int) -> int:
        if token != self._token or self._is_in_doubt:
            async with self._fencing:
                if token != self._token or self._is_in_doubt:
                    await self._fence(token)
        return self._writer

    async def _fence(self, token: int) -> None:
        """Shut out statements that were sent before; waits for one that is under way."""
        rows = await self._database.fetch(_sql["fence"], token)
        if not rows:
            raise self._lease_lost()
        self._token, self._writer, self._is_in_doubt = token, rows[0][0], False

    async def _read(self, statement: str, *values: Any) -> list[Any]:
        """Rows as the last commit left them, also if nobody knows what became of it."""
        if self._is_in_doubt:
            try:
                await self._writer_of(self._token)
            except LeaseLostError:
                self._is_in_doubt = False  # whoever took the lease has waited for it
        return await self._database.fetch(_sql[statement], *values)

    # Writing

    async def commit(self, batch: Batch, token: int) -> None:
        values = parameters_of(batch)
        writer = await self._writer_of(token)
        try:
            async with self._database.connection() as connection:
                held, stale = await written(connection, batch, (token, writer, *values))
        except StaleRunsError:
            raise
        except BaseException as error:
            self._is_in_doubt = error.__cause__ is None or not is_certain(error.__cause__)
            if batch.is_founded and is_conflict(error.__cause__):
                raise StaleRunsError(str(error)) from error
            raise
        if not held:
            raise self._lease_lost()
        if stale:
            raise StaleRunsError(f"another operator has moved on {stale}")

    async def submit(self, value: AnyInput) -> int:
        rows = await self._database.fetch(_sql["submit"], encode_input(value))
        row_id: int = rows[0][0]
        return row_id

    async def forget_signals(self, token: int, *, consumed_before: int) -> None:
        await self._forget("forget_signals", token, consumed_before)

    async def forget_dead_letters(self, token: int, *, received_before: int, kept: int) -> int:
        return await self._forget("forget_dead_letters", token, received_before, kept)

    async def _forget(self, statement: str, token: int, *values: int) -> int:
        held, count = (await self._database.fetch(_sql[statement], token, *values))[0]
        if not held:
            raise self._lease_lost()
        return int(count)

    # Reading

    async def load(self, run_id: str) -> RunState | None:
        return (await self.load_many([run_id])).get(run_id)

    async def load_many(self, run_ids: Sequence[str]) -> dict[str, RunState]:
        return _states_in(await self._read("load", [text_in(each) for each in run_ids]))

    async def load_newer(self, known: Mapping[str, int]) -> dict[str, Newer]:
        run_ids = [text_in(each) for each in known]
        rows = await self._read("load_newer", run_ids, list(known.values()))
        since = {run_of_row(run).id: each for each, run, _ in rows if run is not None}
        states = _states_in([(run, checkpoint) for _, run, checkpoint in rows])
        return {run_id: Newer(state, since=since[run_id]) for run_id, state in states.items()}

    async def ended_runs(self, run_ids: Sequence[str]) -> list[Run]:
        rows = await self._read("ended_runs", [text_in(each) for each in run_ids])
        return [run_of_row(row) for row in rows]

    async def adopt(self, token: int) -> list[OutboxRow]:
        await self._membership.drop_dead(token)
        return [outbox_of_row(row) for row in await self._read("adopt_outbox", token)]

    async def owed_by(self, token: int) -> list[OutboxRow]:
        return [outbox_of_row(row) for row in await self._read("owed_by", token)]

    async def take_inbox(self, token: int, *, limit: int) -> list[InboxRow]:
        # What was taken by a statement whose rows never came is taken once more.
        own = token if self._has_lost_inbox else None
        self._has_lost_inbox = True
        rows = await self._read("take_inbox", token, own, limit)
        self._has_lost_inbox = False
        return [InboxRow(row_id, _input_of(body), body) for row_id, body in sorted(rows)]

    async def due_timers_for(
        self, token: int, now: int, *, grace: int, limit: int
    ) -> list[DueTimer]:
        rows = await self._read("own_due_timers", token, now, now - grace, limit)
        return [DueTimer(text_out(run_id), seq, fires_at) for run_id, seq, fires_at in rows]

    async def next_timer_for(self, token: int, *, grace: int) -> int | None:
        own, any_ones = (await self._read("own_next_timer", token))[0]
        late = None if any_ones is None else any_ones + grace
        return min((each for each in (own, late) if each is not None), default=None)

    async def due_timers(self, now: int, *, limit: int) -> list[DueTimer]:
        rows = await self._read("due_timers", now, limit)
        return [DueTimer(text_out(run_id), seq, fires_at) for run_id, seq, fires_at in rows]

    async def next_timer(self) -> int | None:
        earliest: int | None = (await self._read("next_timer"))[0][0]
        return earliest

    async def next_wakes(self, run_ids: Sequence[str]) -> dict[str, int]:
        rows = await self._read("next_wakes", [text_in(each) for each in run_ids])
        return {text_out(run_id): fires_at for run_id, fires_at in rows}

    async def waiters(self, namespace: str, signal: str, *, limit: int) -> list[Waiter]:
        rows = await self._read("waiters", text_in(signal), text_in(namespace), limit)
        return [Waiter(text_out(run_id), seq) for run_id, seq in rows]

    async def buffered_signals(
        self, namespace: str, signal: str, *, limit: int
    ) -> list[SignalRecord]:
        rows = await self._read("buffered_signals", text_in(namespace), text_in(signal), limit)
        return [signal_of_row(row) for row in rows]

    async def signal(self, signal_id: str) -> SignalRecord | None:
        rows = await self._read("get_signal", text_in(signal_id))
        return signal_of_row(rows[0]) if rows else None

    async def outbox(self) -> list[OutboxRow]:
        return [outbox_of_row(row) for row in await self._read("get_outbox")]

    async def pending_work(self) -> PendingWork:
        turns = [OutTurn(*map(text_out, row)) for row in await self._read("turns_out")]
        steps = [
            OutStep(text_out(run_id), seq, attempt, recoveries)
            for run_id, seq, attempt, recoveries in await self._read("steps_out")
        ]
        return PendingWork(tuple(turns), tuple(steps))

    async def unserved_runs(self, workflow: str, *, limit: int) -> list[Run]:
        rows = await self._read("unserved_runs", text_in(workflow), limit)
        return [run_of_row(row) for row in rows]

    async def unserved_workflows(self) -> list[str]:
        return [text_out(row[0]) for row in await self._read("unserved_workflows")]

    async def inbox(self, *, after: int, limit: int) -> list[InboxRow]:
        rows = await self._read("get_inbox", after, limit)
        return [InboxRow(row_id, _input_of(body), body) for row_id, body in rows]

    @property
    def is_telling(self) -> bool:
        return self._listening.is_on

    @property
    def submitted(self) -> asyncio.Event:
        return self._listening.heard

    async def has_news(self) -> bool:
        await self._listening.begin()
        # It changes with every transaction that has written something, in any database.
        seen, self._seen = self._seen, (await self._database.fetch(_sql["snapshot"]))[0][0]
        return seen != self._seen

    async def list_runs(self, query: RunQuery, *, after: RunCursor | None = None) -> list[Run]:
        statement, values = list_statement(query, after)
        return [run_of_row(row) for row in await self._database.screen(statement, *values)]

    async def facets(self, query: RunQuery) -> Facets:
        statuses: Counter[str] = Counter()
        workflows: Counter[str] = Counter()
        statement, values = count_statement(query)
        async with self._counting:
            rows = await self._database.screen(statement, *values)
        for status, workflow, count in rows:
            statuses[status] += count
            workflows[text_out(workflow)] += count
        return Facets(dict(statuses), dict(workflows))

    async def dead_letters(
        self,
        *,
        limit: int,
        namespace: str | None = None,
        run_id: str | None = None,
        after: str | None = None,
    ) -> list[DeadLetter]:
        asked = [None if each is None else text_in(each) for each in (namespace, run_id, after)]
        rows = await self._database.screen(_sql["list_dead_letters"], *asked, limit)
        return [letter_of_row(row) for row in rows]

    async def dump(self) -> AsyncGenerator[Sequence[AnyRow]]:
        async with self._database.connection() as connection:
            async for rows in dumped(connection):
                yield rows

    async def dead_letter(self, letter_id: str) -> DeadLetter | None:
        rows = await self._read("get_dead_letter", text_in(letter_id))
        return letter_of_row(rows[0]) if rows else None


def _states_in(rows: Sequence[Any]) -> dict[str, RunState]:
    runs: list[tuple[Run, int]] = []
    checkpoints: dict[str, list[Checkpoint]] = {}
    for run, checkpoint in rows:
        if run is not None:
            runs.append((run_of_row(run), revision_of_row(run)))
        else:
            found = checkpoint_of_row(checkpoint)
            checkpoints.setdefault(found.run_id, []).append(found)
    return {
        run.id: RunState(run, checkpoints.get(run.id, ()), revision=revision)
        for run, revision in runs
    }


def _input_of(body: bytes) -> AnyInput | None:
    try:
        return decode_input(body)
    except msgspec.MsgspecError:
        return None
