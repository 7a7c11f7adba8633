"""A store that forgets everything with its process: for tests, and the model of all others."""

from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Sequence
from types import TracebackType
from typing import Self

from msgspec import structs

from durable_worker.errors import LeaseLostError, StaleRunsError
from durable_worker.protocol.runs import RunQuery, RunStatus
from durable_worker.protocol.tasks import HistoryKind
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
from durable_worker.stores.dumps import AnyRow, Submitted
from durable_worker.stores.inputs import AnyInput, decode_input, encode_input
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


class MemoryStore:
    """All rows in dictionaries, by key."""

    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}
        self._checkpoints: dict[str, dict[int, Checkpoint]] = {}
        self._signals: dict[str, SignalRecord] = {}
        self._outbox: dict[str, OutboxRow] = {}
        self._inbox: dict[int, bytes] = {}
        self._last_inbox_id = 0
        self._dead: dict[str, DeadLetter] = {}
        self._holder: LeaseHolder | None = None
        self._token = 0

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

    async def acquire_lease(self, owner: Owner, *, now: int, ttl: int) -> Lease | LeaseHolder:
        held = self._holder
        if held is not None and held.expires_at > now:
            return held
        self._holder = LeaseHolder(owner, now + ttl)
        self._token += 1
        return Lease(self._token, is_takeover=held is not None)

    async def renew_lease(self, token: int, *, now: int, ttl: int) -> None:
        holder = self._check(token)
        self._holder = LeaseHolder(holder.owner, now + ttl)

    async def release_lease(self, token: int) -> None:
        if token == self._token:
            self._holder = None

    def _check(self, token: int) -> LeaseHolder:
        if self._holder is None or token != self._token:
            raise LeaseLostError(lease_lost_message("the memory store"))
        return self._holder

    async def commit(self, batch: Batch, token: int) -> None:
        self._check(token)
        for run_id in batch.absent:
            if run_id in self._runs:
                raise StaleRunsError(run_exists_message("the memory store", run_id))
        self._runs.update((each.id, each) for each in batch.runs)
        for run_id, seq in batch.checkpoints_removed:
            self._checkpoints.get(run_id, {}).pop(seq, None)
        for checkpoint in batch.checkpoints:
            self._checkpoints.setdefault(checkpoint.run_id, {})[checkpoint.seq] = checkpoint
        self._signals.update((each.id, each) for each in batch.signals)
        self._outbox.update((each.key, each) for each in batch.outbox_added)
        for key in batch.outbox_removed:
            self._outbox.pop(key, None)
        for value in batch.inbox_added:
            self._put_into_inbox(value)
        for row_id in batch.inbox_removed:
            self._inbox.pop(row_id, None)
        for letter in batch.dead_letters:
            known = self._dead.get(letter.id, letter)
            redrives = max(known.redrives, letter.redrives)
            self._dead[letter.id] = structs.replace(letter, redrives=redrives)

    async def load(self, run_id: str) -> RunState | None:
        return (await self.load_many([run_id])).get(run_id)

    async def load_many(self, run_ids: Sequence[str]) -> dict[str, RunState]:
        return {
            run_id: RunState(self._runs[run_id], self._checkpoints.get(run_id, {}).values())
            for run_id in run_ids
            if run_id in self._runs
        }

    def _pending(self) -> Iterable[Checkpoint]:
        return (
            each
            for of_run in self._checkpoints.values()
            for each in of_run.values()
            if each.is_pending
        )

    def _timers(self) -> list[DueTimer]:
        found = [
            DueTimer(each.run_id, each.seq, each.fires_at)
            for each in self._pending()
            if each.fires_at is not None
        ]
        return sorted(found, key=lambda each: (each.fires_at, each.run_id, each.seq))

    async def due_timers(self, now: int, *, limit: int) -> list[DueTimer]:
        return [each for each in self._timers() if each.fires_at <= now][:limit]

    async def next_timer(self) -> int | None:
        return next((each.fires_at for each in self._timers()), None)

    async def next_wakes(self, run_ids: Sequence[str]) -> dict[str, int]:
        wakes: dict[str, int] = {}
        for each in self._timers():
            if each.run_id in run_ids:
                wakes.setdefault(each.run_id, each.fires_at)
        return wakes

    async def waiters(self, namespace: str, signal: str, *, limit: int) -> list[Waiter]:
        found = [
            each
            for each in self._pending()
            if each.kind is HistoryKind.SIGNAL
            and each.name == signal
            and self._runs[each.run_id].namespace == namespace
        ]
        found.sort(key=lambda each: (each.enqueued_at, each.run_id, each.seq))
        return [Waiter(each.run_id, each.seq) for each in found[:limit]]

    async def buffered_signals(
        self, namespace: str, signal: str, *, limit: int
    ) -> list[SignalRecord]:
        found = [
            each
            for each in self._signals.values()
            if each.consumed_at is None and (each.namespace, each.name) == (namespace, signal)
        ]
        return sorted(found, key=lambda each: (each.received_at, each.id))[:limit]

    async def signal(self, signal_id: str) -> SignalRecord | None:
        return self._signals.get(signal_id)

    async def forget_signals(self, token: int, *, consumed_before: int) -> None:
        self._check(token)
        self._signals = {
            key: each
            for key, each in self._signals.items()
            if each.consumed_at is None or each.consumed_at >= consumed_before
        }

    async def outbox(self) -> list[OutboxRow]:
        return sorted(self._outbox.values(), key=lambda each: each.key)

    async def pending_work(self) -> PendingWork:
        alive = {run.id: run for run in self._runs.values() if not run.status.is_terminal}
        turns = [OutTurn(run.id, run.task_id) for run in alive.values() if run.task_id is not None]
        steps = [
            OutStep(each.run_id, each.seq, each.attempt, each.recoveries)
            for each in self._pending()
            if each.run_id in alive and each.kind is HistoryKind.CALL and each.is_out
        ]
        return PendingWork(
            tuple(sorted(turns, key=lambda each: each.run_id)),
            tuple(sorted(steps, key=lambda each: (each.run_id, each.seq))),
        )

    async def unserved_runs(self, workflow: str, *, limit: int) -> list[Run]:
        found = [each for each in self._unserved() if each.workflow == workflow]
        return sorted(found, key=lambda each: (each.created_at, each.id))[:limit]

    async def unserved_workflows(self) -> list[str]:
        return sorted({each.workflow for each in self._unserved()})

    def _unserved(self) -> Iterable[Run]:
        return (
            each
            for each in self._runs.values()
            if each.status is RunStatus.PENDING and each.version is None
        )

    async def submit(self, value: AnyInput) -> int:
        return self._put_into_inbox(value)

    def _put_into_inbox(self, value: AnyInput) -> int:
        self._last_inbox_id += 1
        self._inbox[self._last_inbox_id] = encode_input(value)
        return self._last_inbox_id

    async def inbox(self, *, after: int, limit: int) -> list[InboxRow]:
        rows = sorted(item for item in self._inbox.items() if item[0] > after)
        return [InboxRow(row_id, decode_input(body), body) for row_id, body in rows[:limit]]

    async def has_news(self) -> bool:
        return bool(self._inbox)

    async def list_runs(self, query: RunQuery, *, after: RunCursor | None = None) -> list[Run]:
        found = sorted(
            (
                run
                for run in self._selected(query)
                if after is None or (run.created_at, run.id) < (after.created_at, after.run_id)
            ),
            key=lambda run: (run.created_at, run.id),
        )
        start = query.offset or 0
        return found[::-1][start : start + (query.limit or DEFAULT_LIST_LIMIT)]

    async def facets(self, query: RunQuery) -> Facets:
        runs = self._selected(query)
        return Facets(
            dict(Counter(run.status.value for run in runs)),
            dict(Counter(run.workflow for run in runs)),
        )

    def _selected(self, query: RunQuery) -> list[Run]:
        return [run for run in self._runs.values() if _matches(run, query)]

    async def dead_letters(
        self,
        *,
        limit: int,
        namespace: str | None = None,
        run_id: str | None = None,
        after: str | None = None,
    ) -> list[DeadLetter]:
        last = None if after is None else self._dead.get(after)
        if after is not None and last is None:
            return []
        found = [
            structs.replace(each, body=b"")
            for each in self._dead_by_age()
            if (namespace is None or each.namespace == namespace)
            and (run_id is None or each.run_id == run_id)
            and (last is None or _age_of(each) < _age_of(last))
        ]
        return found[:limit]

    def _dead_by_age(self) -> list[DeadLetter]:
        return sorted(self._dead.values(), key=_age_of, reverse=True)

    async def dump(self) -> AsyncGenerator[Sequence[AnyRow]]:
        for run_id, run in sorted(self._runs.items()):
            yield [run, *(each for _, each in sorted(self._checkpoints.get(run_id, {}).items()))]
        yield [each for _, each in sorted(self._signals.items())]
        yield [each for _, each in sorted(self._outbox.items())]
        yield [Submitted(body) for _, body in sorted(self._inbox.items())]
        yield [each for _, each in sorted(self._dead.items())]

    async def dead_letter(self, letter_id: str) -> DeadLetter | None:
        return self._dead.get(letter_id)

    async def forget_dead_letters(self, token: int, *, received_before: int, kept: int) -> int:
        self._check(token)
        before = len(self._dead)
        self._dead = {
            each.id: each
            for each in self._dead_by_age()[:kept]
            if each.received_at >= received_before
        }
        return before - len(self._dead)


def _age_of(letter: DeadLetter) -> tuple[int, str]:
    return letter.received_at, letter.id


def _matches(run: Run, query: RunQuery) -> bool:
    statuses = wanted_statuses(query)
    return (
        (query.workflow is None or run.workflow == query.workflow)
        and (statuses is None or run.status in statuses)
        and (query.tag is None or query.tag in run.tags)
        and (query.namespace is None or run.namespace == stored_namespace(query.namespace))
    )
