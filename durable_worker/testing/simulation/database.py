"""A simulated database server: the real memory store behind connections that can fail.

Its rows survive every process. A call takes time on its way there and back; a transaction is done
as a whole or not at all, but its caller may not learn which.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from msgspec import Raw

from durable_worker.errors import LeaseLostError, StoreError
from durable_worker.protocol.runs import RunQuery
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.base import Batch, InboxRow, Lease, LeaseHolder, Owner, RunCursor
from durable_worker.stores.inputs import AnyInput
from durable_worker.stores.memory import MemoryStore
from durable_worker.stores.records import (
    DeadLetter,
    DueTimer,
    Facets,
    OutboxRow,
    PendingWork,
    Run,
    RunState,
    SignalRecord,
    Waiter,
)
from durable_worker.testing.simulation.audit import Audit
from durable_worker.testing.simulation.chance import FaultKind, Strikes
from durable_worker.testing.simulation.loop import Scheduler
from durable_worker.testing.simulation.processes import Process
from durable_worker.testing.simulation.trace import Trace

T = TypeVar("T")


class Rows(MemoryStore):
    """What is in the database."""

    def expire_lease(self) -> None:
        """Whoever holds it is taken for gone."""
        if self._holder is not None:
            self._holder = LeaseHolder(self._holder.owner, 0)

    def put_forward(self, ms: int) -> None:
        """The clocks are put forward; whoever holds the lease keeps it for as long as before."""
        if self._holder is not None:
            self._holder = LeaseHolder(self._holder.owner, self._holder.expires_at + ms)

    @property
    def next_due(self) -> int | None:
        """When the next timer fires, if timers and signals are all that the runs wait for."""
        if any(run.task_id is not None for run in self._runs.values()):
            return None
        pending = [each for each in self._pending() if each.kind is not HistoryKind.SIGNAL]
        if any(each.kind is HistoryKind.CALL and each.is_out for each in pending):
            return None
        return min((each.fires_at for each in pending if each.fires_at is not None), default=None)

    @property
    def is_settled(self) -> bool:
        """Whether no message is owed and no input waits."""
        return not self._outbox and not self._inbox

    @property
    def signals(self) -> int:
        """How many signals have been taken in, those aside that a run has handed on."""
        return sum(not signal_id.startswith("continued:") for signal_id in self._signals)

    @property
    def letters(self) -> list[DeadLetter]:
        return list(self._dead.values())

    def every_run(self) -> dict[str, RunState]:
        return {
            run_id: RunState(run, self._checkpoints.get(run_id, {}).values())
            for run_id, run in self._runs.items()
        }


class Database:
    def __init__(
        self, rows: Rows, scheduler: Scheduler, strikes: Strikes, trace: Trace, audit: Audit
    ) -> None:
        self.rows = rows
        self.scheduler = scheduler
        self.strikes = strikes
        self.trace = trace
        self.audit = audit


class StoreLink:
    """A `Store`, as one process sees it."""

    def __init__(self, database: Database, process: Process) -> None:
        self._database = database
        self._rows = database.rows
        self._process = process
        self._life = process.lives

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        pass

    # Writing

    async def acquire_lease(self, owner: Owner, *, now: int, ttl: int) -> Lease | LeaseHolder:
        database = self._database
        if database.strikes.hit(FaultKind.LEASE_EXPIRED) is not None:
            self._note("LEASE-EXPIRED")
            self._rows.expire_lease()

        async def act() -> Lease | LeaseHolder:
            outcome = await self._rows.acquire_lease(owner, now=now, ttl=ttl)
            if isinstance(outcome, Lease):
                self._note("lease", outcome.token)
                database.audit.lease_given(outcome.token, self._label)
            return outcome

        return await self._call("acquire_lease", act)

    async def renew_lease(self, token: int, *, now: int, ttl: int) -> None:
        await self._call(
            "renew_lease", lambda: self._rows.renew_lease(token, now=now, ttl=ttl), is_write=True
        )

    async def release_lease(self, token: int) -> None:
        await self._call("release_lease", lambda: self._rows.release_lease(token))

    async def commit(self, batch: Batch, token: int) -> None:
        database = self._database

        async def act() -> None:
            try:
                await self._rows.commit(batch, token)
            except LeaseLostError:
                self._note("refused", f"lease {token} is lost")
                raise
            self._note_rows(batch)
            database.audit.committed(batch, token, at=database.scheduler.now, by=self._label)

        await self._call("commit", act, is_write=True)

    async def forget_signals(self, token: int, *, consumed_before: int) -> None:
        await self._call(
            "forget_signals",
            lambda: self._rows.forget_signals(token, consumed_before=consumed_before),
            is_write=True,
        )

    async def forget_dead_letters(self, token: int, *, received_before: int, kept: int) -> int:
        return await self._call(
            "forget_dead_letters",
            lambda: self._rows.forget_dead_letters(
                token, received_before=received_before, kept=kept
            ),
            is_write=True,
        )

    async def submit(self, value: AnyInput) -> int:
        return await self._call("submit", lambda: self._rows.submit(value), is_write=True)

    # Reading

    async def load(self, run_id: str) -> RunState | None:
        return await self._call("load", lambda: self._rows.load(run_id))

    async def load_many(self, run_ids: Sequence[str]) -> dict[str, RunState]:
        return await self._call("load_many", lambda: self._rows.load_many(run_ids))

    async def due_timers(self, now: int, *, limit: int) -> list[DueTimer]:
        return await self._call("due_timers", lambda: self._rows.due_timers(now, limit=limit))

    async def next_timer(self) -> int | None:
        return await self._call("next_timer", self._rows.next_timer)

    async def waiters(self, namespace: str, signal: str, *, limit: int) -> list[Waiter]:
        return await self._call(
            "waiters", lambda: self._rows.waiters(namespace, signal, limit=limit)
        )

    async def buffered_signals(
        self, namespace: str, signal: str, *, limit: int
    ) -> list[SignalRecord]:
        return await self._call(
            "buffered_signals", lambda: self._rows.buffered_signals(namespace, signal, limit=limit)
        )

    async def signal(self, signal_id: str) -> SignalRecord | None:
        return await self._call("signal", lambda: self._rows.signal(signal_id))

    async def outbox(self) -> list[OutboxRow]:
        return await self._call("outbox", self._rows.outbox)

    async def pending_work(self) -> PendingWork:
        return await self._call("pending_work", self._rows.pending_work)

    async def unserved_runs(self, workflow: str, *, limit: int) -> list[Run]:
        return await self._call(
            "unserved_runs", lambda: self._rows.unserved_runs(workflow, limit=limit)
        )

    async def unserved_workflows(self) -> list[str]:
        return await self._call("unserved_workflows", self._rows.unserved_workflows)

    async def inbox(self, *, after: int, limit: int) -> list[InboxRow]:
        return await self._call("inbox", lambda: self._rows.inbox(after=after, limit=limit))

    async def has_news(self) -> bool:
        return await self._call("has_news", self._rows.has_news)

    async def list_runs(self, query: RunQuery, *, after: RunCursor | None = None) -> list[Run]:
        return await self._call("list_runs", lambda: self._rows.list_runs(query, after=after))

    async def next_wakes(self, run_ids: Sequence[str]) -> dict[str, int]:
        return await self._call("next_wakes", lambda: self._rows.next_wakes(run_ids))

    async def facets(self, query: RunQuery) -> Facets:
        return await self._call("facets", lambda: self._rows.facets(query))

    async def dead_letters(
        self,
        *,
        limit: int,
        namespace: str | None = None,
        run_id: str | None = None,
        after: str | None = None,
    ) -> list[DeadLetter]:
        return await self._call(
            "dead_letters",
            lambda: self._rows.dead_letters(
                limit=limit, namespace=namespace, run_id=run_id, after=after
            ),
        )

    async def dead_letter(self, letter_id: str) -> DeadLetter | None:
        return await self._call("dead_letter", lambda: self._rows.dead_letter(letter_id))

    # The way there and back

    async def _call(
        self, what: str, act: Callable[[], Coroutine[Any, Any, T]], *, is_write: bool = False
    ) -> T:
        if not self._is_here:
            raise StoreError(f"{self._label} is dead")
        scheduler, strikes = self._database.scheduler, self._database.strikes
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        is_refused = strikes.hit(FaultKind.STORE_REFUSED) is not None
        is_torn = is_write and strikes.hit(FaultKind.STORE_TORN) is not None
        there, back = self._latencies(what)

        def arrive() -> None:
            try:
                if is_refused:
                    self._note("STORE-REFUSED", what)
                    raise StoreError(f"{what}: the database is away")
                outcome = _at_once(act())
                if is_torn:
                    self._note("STORE-TORN", what)
                    raise StoreError(f"{what}: the connection was lost during it")
            except StoreError as error:
                scheduler.call_at(scheduler.now + back, self._fail, future, error)
            else:
                scheduler.call_at(scheduler.now + back, self._resolve, future, outcome)

        scheduler.call_at(scheduler.now + there, arrive)
        return await future

    def _latencies(self, what: str) -> tuple[float, float]:
        random = self._process.random
        there, back = 0.001 * random.random(), 0.001 * random.random()
        slow = self._database.strikes.hit(FaultKind.STORE_SLOW)
        if slow is not None:
            seconds = slow.choice((0.1, 0.5, 2.0, 4.0)) * slow.random()
            self._note("STORE-SLOW", what, f"{seconds:.2f}s")
            if slow.random() < 0.5:
                there += seconds
            else:
                back += seconds
        return there, back

    def _resolve(self, future: asyncio.Future[T], outcome: T) -> None:
        if self._is_here and not future.done():
            with self._database.scheduler.inside(self._process.loop):
                future.set_result(outcome)

    def _fail(self, future: asyncio.Future[Any], error: StoreError) -> None:
        if self._is_here and not future.done():
            with self._database.scheduler.inside(self._process.loop):
                future.set_exception(error)

    @property
    def _is_here(self) -> bool:
        return self._process.is_alive and self._process.lives == self._life

    @property
    def _label(self) -> str:
        return f"{self._process.name}.{self._life}"

    def _note(self, what: str, *details: object) -> None:
        self._database.trace.note(self._database.scheduler.now, self._label, what, *details)

    def _note_rows(self, batch: Batch) -> None:
        if not self._database.trace.is_kept:
            return
        for run in batch.runs:
            self._note("run", run.id, run.status.value, f"turn {run.turn_no}", run.task_id or "-")
        for each in batch.checkpoints:
            told = each.output if isinstance(each.output, Raw) else b""
            self._note(
                "checkpoint",
                f"{each.run_id}:{each.seq}",
                each.kind.value,
                each.name,
                each.status.value,
                f"attempt {each.attempt}",
                bytes(told).decode()[:80],
            )


def _at_once(work: Coroutine[Any, Any, T]) -> T:
    """The outcome of a coroutine of the memory store, which waits for nothing."""
    try:
        work.send(None)
    except StopIteration as ended:
        return ended.value  # type: ignore[no-any-return]
    work.close()
    raise AssertionError("the memory store has waited for something")
