"""What the operator and local clients need from a database."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from durable_worker.protocol.names import is_default
from durable_worker.protocol.runs import RunQuery, RunStatus
from durable_worker.stores.inputs import AnyInput
from durable_worker.stores.records import (
    Checkpoint,
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

DEFAULT_LIST_LIMIT = 100


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that wants to operate the database.

    `machine` identifies host, boot and process namespace: only there `pid` means something.
    `process_start` tells two processes with one pid apart (None where the system does not say).
    """

    instance_id: str
    host: str
    machine: str
    pid: int
    process_start: str | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write, with its fencing token. `is_takeover`: the one before never let go."""

    token: int
    is_takeover: bool


@dataclass(frozen=True, slots=True)
class LeaseHolder:
    """Who holds the lease, until when (epoch ms) unless it is renewed."""

    owner: Owner
    expires_at: int


@dataclass(frozen=True, slots=True)
class RunCursor:
    """A place in a listing: right behind this run."""

    created_at: int
    run_id: str


@dataclass(frozen=True, slots=True)
class Newer:
    """A run that has moved on, with the checkpoints that are newer than revision `since` (0: all of
    them): none that was known by then has been taken away."""

    state: RunState
    since: int


@dataclass(frozen=True, slots=True)
class InboxRow:
    """An input that some process has submitted. `input` is None if this version cannot read it."""

    id: int
    input: AnyInput | None
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows that change together. Runs, checkpoints, signals and letters replace those they equal
    by key; checkpoints are removed, by run and seq, before others are written. A letter that comes
    again keeps the count of its redrives.

    `expected`, `signals_arrived` and `waits_begun` are what it rests on: the revision of each run
    that was looked at (0: there is none, of which one that is no `SharedStore` makes sure as well),
    and for a `SharedStore` the ids of signals that nobody had seen yet, and for which signals
    (namespace, name) waits begin that found none. Each run in `expected` that changes is among
    `runs`."""

    runs: Sequence[Run] = ()
    checkpoints: Sequence[Checkpoint] = ()
    checkpoints_removed: Sequence[tuple[str, int]] = ()
    signals: Sequence[SignalRecord] = ()
    outbox_added: Sequence[OutboxRow] = ()
    outbox_removed: Sequence[str] = ()
    inbox_added: Sequence[AnyInput] = ()
    inbox_removed: Sequence[int] = ()
    dead_letters: Sequence[DeadLetter] = ()
    expected: Sequence[tuple[str, int]] = ()
    signals_arrived: Sequence[str] = ()
    waits_begun: Sequence[tuple[str, str]] = ()

    @property
    def is_founded(self) -> bool:
        """Whether it says what it rests on."""
        return bool(self.expected or self.signals_arrived or self.waits_begun)

    @property
    def absent(self) -> Sequence[str]:
        """The runs of which there must be none."""
        return [run_id for run_id, revision in self.expected if not revision]

    @property
    def is_empty(self) -> bool:
        return not (
            self.runs
            or self.checkpoints
            or self.checkpoints_removed
            or self.signals
            or self.outbox_added
            or self.outbox_removed
            or self.inbox_added
            or self.inbox_removed
            or self.dead_letters
        )


class Store(Protocol):
    """A database, opened by entering it. One operator writes (lease), any process may read and
    `submit`.

    Every method raises `StoreError` if the database cannot be opened, read or written, and
    `StoreFullError` if its disk is full. Instants are epoch milliseconds.
    """

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...

    async def acquire_lease(self, owner: Owner, *, now: int, ttl: int) -> Lease | LeaseHolder:
        """Become the writer for `ttl` ms, or learn who is. At once if the last holder let go, let
        it expire, or was a process of this machine that no longer exists."""
        ...

    async def renew_lease(self, token: int, *, now: int, ttl: int) -> None:
        """Raises `LeaseLostError`."""
        ...

    async def release_lease(self, token: int) -> None:
        """Let go. Harmless if the lease is lost already."""
        ...

    async def commit(self, batch: Batch, token: int) -> None:
        """Write all of it or nothing. Raises `LeaseLostError` if `token` is not the lease's, and
        `StaleRunsError` if there is a run that is expected not to be."""
        ...

    async def load(self, run_id: str) -> RunState | None: ...
    async def load_many(self, run_ids: Sequence[str]) -> dict[str, RunState]: ...

    async def due_timers(self, now: int, *, limit: int) -> list[DueTimer]:
        """Pending checkpoints with `fires_at <= now`, earliest first."""
        ...

    async def next_timer(self) -> int | None:
        """The earliest `fires_at` of a pending checkpoint."""
        ...

    async def waiters(self, namespace: str, signal: str, *, limit: int) -> list[Waiter]:
        """Pending waits for a signal, oldest first."""
        ...

    async def buffered_signals(
        self, namespace: str, signal: str, *, limit: int
    ) -> list[SignalRecord]:
        """Signals that nobody has consumed, oldest first."""
        ...

    async def signal(self, signal_id: str) -> SignalRecord | None: ...

    async def forget_signals(self, token: int, *, consumed_before: int) -> None: ...

    async def outbox(self) -> list[OutboxRow]: ...
    async def pending_work(self) -> PendingWork: ...

    async def unserved_runs(self, workflow: str, *, limit: int) -> list[Run]:
        """Runs of a workflow that wait for a worker to appear (no version yet), oldest first."""
        ...

    async def unserved_workflows(self) -> list[str]: ...

    async def submit(self, value: AnyInput) -> int:
        """Hand an input to whoever operates the database, from any process; returns its row id."""
        ...

    async def inbox(self, *, after: int, limit: int) -> list[InboxRow]:
        """Submitted inputs with an id above `after`, in order. A commit removes them."""
        ...

    async def has_news(self) -> bool:
        """Whether another process may have submitted something since the last call. Cheap."""
        ...

    async def list_runs(self, query: RunQuery, *, after: RunCursor | None = None) -> list[Run]:
        """Newest first; at most `DEFAULT_LIST_LIMIT` unless the query says otherwise."""
        ...

    async def next_wakes(self, run_ids: Sequence[str]) -> dict[str, int]:
        """The earliest pending `fires_at` of each of these runs that has one."""
        ...

    async def facets(self, query: RunQuery) -> Facets: ...
    async def dead_letters(
        self,
        *,
        limit: int,
        namespace: str | None = None,
        run_id: str | None = None,
        after: str | None = None,
    ) -> list[DeadLetter]:
        """Newest first, without bodies; those older than the letter with the id `after`, if it is
        given (none, if there is no such letter)."""
        ...

    async def dead_letter(self, letter_id: str) -> DeadLetter | None: ...

    async def forget_dead_letters(self, token: int, *, received_before: int, kept: int) -> int:
        """Drop the older ones, and all but the newest `kept`; returns how many."""
        ...


@runtime_checkable
class TellingStore(Store, Protocol):
    """A store that tells its operator when another process has submitted something."""

    @property
    def is_telling(self) -> bool:
        """Whether it does at the moment; `has_news` sees to it that it does again."""
        ...

    @property
    def submitted(self) -> asyncio.Event:
        """Is set then. Who has looked clears it."""
        ...


@runtime_checkable
class SharedStore(Store, Protocol):
    """A store that many operators may write at once: its members, each with a token of its own,
    which `renew_lease`, `release_lease` and `commit` take. Nobody is a member beside a holder of
    the lease.

    Members are judged by the clock of the database. A `commit` raises `StaleRunsError` if what it
    rests on is not so any more.
    """

    async def join(self, owner: Owner, *, now: int, ttl: int) -> Lease | LeaseHolder:
        """Become a member, or learn who holds the lease alone. `is_takeover`: some member never
        left, and is none any more."""
        ...

    async def adopt(self, token: int) -> list[OutboxRow]:
        """Take over what is owed by those who are no members any more; ends the membership of those
        who have not renewed theirs, or whose process on this machine is gone."""
        ...

    async def owed_by(self, token: int) -> list[OutboxRow]: ...

    async def load_newer(self, known: Mapping[str, int]) -> dict[str, Newer]:
        """Those of these runs that are not at the revision that is known (0: not known), with what
        is newer than that."""
        ...

    async def ended_runs(self, run_ids: Sequence[str]) -> list[Run]: ...

    async def due_timers_for(
        self, token: int, now: int, *, grace: int, limit: int
    ) -> list[DueTimer]:
        """As `due_timers`: those of this member, and all that are late by `grace` ms."""
        ...

    async def next_timer_for(self, token: int, *, grace: int) -> int | None:
        """When the first of them will be due."""
        ...

    async def take_inbox(self, token: int, *, limit: int) -> list[InboxRow]:
        """Submitted inputs that no other member has taken, in order; each once for each member."""
        ...


def wanted_statuses(query: RunQuery) -> list[RunStatus] | None:
    """The statuses that a query selects; None: all."""
    if query.status is None and query.statuses is None:
        return None
    both = [*(query.statuses or ())]
    return both if query.status is None else [query.status, *both]


def stored_namespace(name: str | None) -> str:
    """How rows spell a namespace: unset, empty and `default` are one."""
    return "default" if name is None or is_default(name) else name


def run_exists_message(database: str, run_id: str) -> str:
    return f"{database} has a run {run_id!r} already"


def membership_lost_message(database: str) -> str:
    return (
        f"the other operators of {database} have taken this one for dead: it had not been heard of "
        f"for longer than its lease. If one of them holds it alone, stop that one; then start this "
        f"one again"
    )


def lease_lost_message(database: str) -> str:
    return (
        f"another operator has taken over {database}; this one stops. Run one operator for each "
        f"database, or wait until the other one has ended"
    )
