"""What a store keeps: runs, their checkpoints, and what waits around them.

Instants are epoch milliseconds (UTC) everywhere on this floor and in the operator. Payloads are the
bytes that came over the wire, never decoded. What there may be a hundred thousand of is kept from
the garbage collector: it is part of no cycle.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from msgspec import UNSET, Struct

from durable_worker.protocol.base import PROTOCOL_VERSION, Payload
from durable_worker.protocol.commands import RetryOptions
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.names import DEFAULT_NAMESPACE
from durable_worker.protocol.results import StepEvent
from durable_worker.protocol.runs import RunStatus
from durable_worker.protocol.tasks import HistoryKind

LAST_INSTANT = 253_402_300_799_999
"""The end of the year 9999; later instants are taken for this one."""

PARKED_SEQ = -1
"""Beside the body: the timer of a run that is parked. It outlives that, to count how often."""

LAST_SEQ = 2**53 - 1
"""Larger numbers are not the same in every peer's language."""

UNORDERED = -1
"""In place of `Run.ordered`: its bodies are given results by the rules of markers."""

INBOX = "inbox"
"""In place of a queue: where a `DeadLetter` was found that is an input and no message."""


def turn_id(run_id: str, turn_no: int) -> str:
    return f"{run_id}#{turn_no}"


class Parent(Struct, frozen=True, gc=False):
    """The child operation that a run answers to."""

    run_id: str
    seq: int


class Run(Struct, frozen=True, kw_only=True, gc=False):
    """One execution. `version` is None until a worker that serves the workflow has appeared.

    `task_id` is the turn that the run awaits (None: no turn is out), `is_dirty` that history grew
    while it was out, `recoveries` how often a turn was lost since the last applied decision.
    `ordered` is the order of the latest result that the last applied decision knew, `UNORDERED` for
    a run whose bodies do not go by that, None until a decision tells.
    """

    id: str
    workflow: str
    version: str | None
    namespace: str
    partition: str | None = None
    status: RunStatus
    input: Payload = UNSET
    output: Payload = UNSET
    error: Failure | None = None
    parent: Parent | None = None
    tags: tuple[str, ...] = ()
    search_attributes: Payload = UNSET
    created_at: int
    updated_at: int
    turn_no: int = 0
    task_id: str | None = None
    is_dirty: bool = False
    recoveries: int = 0
    ordered: int | None = UNORDERED


class CheckpointStatus(StrEnum):
    PENDING = "pending"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


_PENDING = CheckpointStatus.PENDING
_ENDED = (CheckpointStatus.COMPLETED, CheckpointStatus.FAILED)


class Checkpoint(Struct, frozen=True, kw_only=True, gc=False):
    """How the operation at one seq of a run stands.

    `name` is the step, the signal, the child's workflow, or `sleep:<seq>`. `fires_at` is a timer's
    deadline, or when an attempt that is out is given up (None: never), or when a call that has
    failed is tried again.
    `recoveries` counts how often the current attempt was sent again because it was lost. `order`
    tells which of the run's operations it was to be resolved, from 1.
    """

    run_id: str
    seq: int
    kind: HistoryKind
    name: str
    status: CheckpointStatus
    input: Payload = UNSET
    output: Payload = UNSET
    error: Failure | None = None
    attempt: int = 1
    retry: RetryOptions | None = None
    partition: str | None = None
    fires_at: int | None = None
    enqueued_at: int
    started_at: int | None = None
    finished_at: int | None = None
    events: tuple[StepEvent, ...] = ()
    parallel_group: str | None = None
    recoveries: int = 0
    order: int | None = None

    @property
    def is_pending(self) -> bool:
        return self.status is _PENDING

    @property
    def is_timer(self) -> bool:
        return self.kind is HistoryKind.TIMER

    @property
    def is_out(self) -> bool:
        """Of a pending call: an attempt is out; the next one is not waited for."""
        return self.fires_at is None or self.error is None

    @property
    def is_history(self) -> bool:
        """Whether a turn gets to see it."""
        return self.status in _ENDED


class RunState:
    """A run with its checkpoints, and an index of those that are still pending.

    Transitions only read it; its owner moves it on with `absorb`, in time that does not depend on
    the length of the history. `revision` counts the transactions that have changed it, in a store
    that several operators write.
    """

    __slots__ = ("_checkpoints", "_last_order", "_pending", "_timers", "revision", "run")

    def __init__(
        self, run: Run, checkpoints: Iterable[Checkpoint] = (), *, revision: int = 0
    ) -> None:
        self.run = run
        self.revision = revision
        self._checkpoints = {each.seq: each for each in checkpoints}
        self._pending = {seq: each for seq, each in self._checkpoints.items() if each.is_pending}
        self._timers = {each.seq: each for each in self._pending.values() if each.is_timer}
        orders = (each.order or 0 for each in self._checkpoints.values())
        self._last_order = max(orders, default=0)

    @property
    def last_order(self) -> int:
        """That of the latest result."""
        return self._last_order

    @property
    def checkpoints(self) -> Mapping[int, Checkpoint]:
        return self._checkpoints

    @property
    def pending(self) -> Mapping[int, Checkpoint]:
        return self._pending

    @property
    def timers(self) -> Mapping[int, Checkpoint]:
        """Of those that are pending, the sleeps."""
        return self._timers

    def absorb(
        self, run: Run | None, checkpoints: Iterable[Checkpoint], withdrawn: Iterable[int] = ()
    ) -> None:
        if run is not None:
            self.run = run
        for seq in withdrawn:
            self._checkpoints.pop(seq, None)
            self._pending.pop(seq, None)
            self._timers.pop(seq, None)
        for each in checkpoints:
            self._checkpoints[each.seq] = each
            if not each.is_pending:
                if each.order is not None and each.order > self._last_order:
                    self._last_order = each.order
                self._pending.pop(each.seq, None)
                self._timers.pop(each.seq, None)
                continue
            self._pending[each.seq] = each
            if each.is_timer:
                self._timers[each.seq] = each

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RunState):
            return NotImplemented
        return self.run == other.run and self._checkpoints == other._checkpoints

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"RunState({self.run!r}, {list(self._checkpoints.values())!r})"


class SignalRecord(Struct, frozen=True, kw_only=True):
    """A signal that has arrived. Consumed ones stay for a while, to know a duplicate by `id`."""

    id: str
    namespace: str
    name: str
    payload: Payload = UNSET
    received_at: int
    consumed_at: int | None = None


class Waiter(Struct, frozen=True):
    """A pending wait for a signal."""

    run_id: str
    seq: int


class DueTimer(Struct, frozen=True):
    run_id: str
    seq: int
    fires_at: int


class OutboxRow(Struct, frozen=True, gc=False):
    """A message that is owed: a turn (`seq` is None, `key` its task id), an attempt at a step, or a
    dead letter that is sent again (`attempt` is 0, `run_id` the id of the letter)."""

    key: str
    run_id: str
    seq: int | None = None
    attempt: int = 1

    @property
    def is_letter(self) -> bool:
        return self.attempt == 0


class DeadLetter(Struct, frozen=True, kw_only=True):
    """A message that nobody could use, as it came. `id` is derived from its content.

    `queue` is the work queue that it was taken from (None: not known), or `INBOX`. `run_id` with
    `seq` or `task_id` is what the body names, `namespace` that of the run, of the operator if it
    has no such run. `size` is the length of the body, which listings leave out. `last_seq` is the
    highest seq that the run had asked for when the letter came. `redriven_at` is None until
    somebody has it sent again; if that fails as before, it is None once more.
    """

    id: str
    received_at: int
    type: str | None = None
    message_id: str | None = None
    reason: str
    body: bytes
    headers: dict[str, str] = {}
    queue: str | None = None
    protocol: int | None = PROTOCOL_VERSION
    namespace: str = DEFAULT_NAMESPACE
    run_id: str | None = None
    seq: int | None = None
    task_id: str | None = None
    size: int = 0
    last_seq: int | None = None
    redriven_at: int | None = None
    redrives: int = 0


class OutTurn(Struct, frozen=True):
    """A turn that a run awaits."""

    run_id: str
    task_id: str


class OutStep(Struct, frozen=True):
    """An attempt at a call that is out, sent again `recoveries` times so far."""

    run_id: str
    seq: int
    attempt: int
    recoveries: int


@dataclass(frozen=True, slots=True)
class PendingWork:
    """Everything that workers owe an answer to."""

    turns: tuple[OutTurn, ...] = ()
    steps: tuple[OutStep, ...] = ()


@dataclass(frozen=True, slots=True)
class Facets:
    """How many runs there are by status and by workflow."""

    statuses: dict[str, int] = field(default_factory=dict[str, int])
    workflows: dict[str, int] = field(default_factory=dict[str, int])
