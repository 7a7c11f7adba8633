"""Runs in memory. They are valid there because this process holds the lease; with several
operators on one store, until a commit finds that another one has moved them on."""

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Container, Iterable, Sequence

import msgspec
from msgspec import Raw, Struct

from durable_worker.protocol.commands import WorkflowDecision
from durable_worker.protocol.tasks import HistoryEvent, HistoryKind
from durable_worker.stores.base import SharedStore, Store
from durable_worker.stores.records import Checkpoint, Run, RunState

_encode = msgspec.json.Encoder().encode


class Addition(Struct, frozen=True, gc=False):
    """What is new in a history since turn `since`, which the worker `keeper` keeps."""

    since: str
    keeper: str
    events: list[bytes]


class _SentTurn:
    """The turn that was sent last, if nobody else can have sent it, and what has come after it.

    `keeper` is the worker that has answered it and keeps its history.
    """

    __slots__ = ("added", "keeper", "task_id")

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        self.keeper: str | None = None
        self.added: dict[int, bytes] = {}


class Ledger:
    """A run's state, with its history as the bytes of a JSON array.

    What is in order is appended once. An event that comes before others costs those after it.
    """

    __slots__ = ("_ends", "_joined", "_loose", "_loose_bytes", "_sent", "_seqs", "state")

    def __init__(self, state: RunState) -> None:
        self.state = state
        self._seqs: list[int] = []
        self._joined = bytearray()
        self._ends: list[int] = []
        self._loose: dict[int, bytes] = {}
        self._loose_bytes = 0
        self._sent: _SentTurn | None = None
        self._take_in(state.checkpoints[seq] for seq in sorted(state.checkpoints))

    def absorb(
        self, run: Run | None, checkpoints: Sequence[Checkpoint], withdrawn: Iterable[int] = ()
    ) -> None:
        self.state.absorb(run, checkpoints, withdrawn)
        # From the end on, nothing has to move when a whole history goes.
        for seq in sorted(withdrawn, reverse=True):
            self._leave_out(seq)
        self._take_in(checkpoints)

    def catch_up(self, newer: RunState) -> None:
        """Others have moved the run on: `newer` has the checkpoints that have changed since."""
        self.absorb(newer.run, list(newer.checkpoints.values()))
        self.state.revision = newer.revision

    def _take_in(self, checkpoints: Iterable[Checkpoint]) -> None:
        for each in checkpoints:
            if not each.is_history:
                self._leave_out(each.seq)
                continue
            event = encode_event(each)
            if not self._seqs or each.seq > self._seqs[-1]:
                self._seqs.append(each.seq)
            else:
                at = bisect_left(self._seqs, each.seq)
                self._loosen(at)
                if self._seqs[at] != each.seq:
                    self._seqs.insert(at, each.seq)
                else:
                    self._sent = None
            if self._sent is not None:
                self._sent.added[each.seq] = event
            self._put_loose(each.seq, event + b",")

    def _leave_out(self, seq: int) -> None:
        if not self._seqs or seq > self._seqs[-1]:
            return
        at = bisect_left(self._seqs, seq)
        if self._seqs[at] == seq:
            self._sent = None
            self._loosen(at)
            del self._seqs[at]
            self._loose_bytes -= len(self._loose.pop(seq))

    def _loosen(self, at: int) -> None:
        """Take the events from this place on out of what is joined."""
        if at >= len(self._ends):
            return
        kept = self._ends[at - 1] if at else 0
        start = kept
        for seq, end in zip(self._seqs[at:], self._ends[at:], strict=False):
            self._put_loose(seq, bytes(self._joined[start:end]))
            start = end
        del self._joined[kept:], self._ends[at:]

    def _put_loose(self, seq: int, event: bytes) -> None:
        self._loose_bytes += len(event) - len(self._loose.get(seq, b""))
        self._loose[seq] = event

    def note_keeper(self, decision: WorkflowDecision) -> None:
        """Who keeps what the answered turn came with, whatever becomes of the answer."""
        if decision.kept is not None:
            self.kept_by(decision.kept, decision.task_id)

    def kept_by(self, keeper: str, task_id: str) -> None:
        """The worker `keeper` keeps the history that turn `task_id` came with."""
        if self._sent is not None and self._sent.task_id == task_id:
            self._sent.keeper = keeper

    def sending(self, task_id: str, *, is_known: bool) -> Addition | None:
        """Turn `task_id` leaves: what of it a worker does not have that keeps the rest.

        `is_known`: this is its only copy, so whoever answers it has what is in history now.
        """
        sent, self._sent = self._sent, _SentTurn(task_id) if is_known else None
        if sent is None or sent.keeper is None:
            return None
        return Addition(sent.task_id, sent.keeper, [sent.added[seq] for seq in sorted(sent.added)])

    @property
    def weight(self) -> int:
        """In kilobytes, roughly: an output is held both in its checkpoint and in its event."""
        size = len(self._joined) + self._loose_bytes
        if isinstance(self.state.run.input, Raw):
            size += len(self.state.run.input)
        return 1 + len(self.state.checkpoints) + size // 512

    def history(self) -> bytearray:
        """The events, joined by commas, with one at the end. Not to be kept or changed."""
        for seq in self._seqs[len(self._ends) :]:
            self._joined += self._loose[seq]
            self._ends.append(len(self._joined))
        self._loose.clear()
        self._loose_bytes = 0
        return self._joined


def encode_event(checkpoint: Checkpoint) -> bytes:
    is_named = checkpoint.kind not in (HistoryKind.SIGNAL, HistoryKind.CHILD)
    return _encode(
        HistoryEvent(
            seq=checkpoint.seq,
            kind=checkpoint.kind,
            name=checkpoint.name if is_named else None,
            output=checkpoint.output,
            error=checkpoint.error,
            order=checkpoint.order,
        )
    )


class Ledgers:
    """The runs that were touched last, at most `capacity` checkpoints of them."""

    def __init__(self, store: Store, *, capacity: int) -> None:
        self._store = store
        self._capacity = capacity
        self._ledgers: OrderedDict[str, Ledger] = OrderedDict()
        self._weights: dict[str, int] = {}
        self._total = 0

    def peek(self, run_id: str) -> RunState | None:
        """What is in memory; None says nothing about the store."""
        found = self._ledgers.get(run_id)
        return None if found is None else found.state

    def find(self, run_id: str) -> Ledger | None:
        """What is in memory, as `peek`."""
        return self._ledgers.get(run_id)

    def held(self, run_id: str) -> Ledger:
        """A ledger that is known to be in memory: nothing leaves it within a transaction."""
        return self._ledgers[run_id]

    async def get(self, run_id: str) -> Ledger | None:
        found = self._ledgers.get(run_id)
        if found is None:
            await self.fetch([run_id])
            found = self._ledgers.get(run_id)
        return found

    async def fetch(self, run_ids: Iterable[str], *, anew: SharedStore | None = None) -> int:
        """Bring into memory what exists of these; with `anew` also what is there in an older state.
        Returns how many were."""
        if anew is not None:
            return await self._refresh(anew, run_ids)
        missing = [run_id for run_id in dict.fromkeys(run_ids) if run_id not in self._ledgers]
        if missing:
            for run_id, state in (await self._store.load_many(missing)).items():
                self._ledgers[run_id] = Ledger(state)
        return 0

    async def _refresh(self, store: SharedStore, run_ids: Iterable[str]) -> int:
        known = {run_id: self._revision_of(run_id) for run_id in dict.fromkeys(run_ids)}
        if not known:
            return 0
        newer = await store.load_newer(known)
        for run_id, found in newer.items():
            if found.since:
                self._ledgers[run_id].catch_up(found.state)
            else:
                self.forget([run_id])
                self._ledgers[run_id] = Ledger(found.state)
        return sum(known[run_id] > 0 for run_id in newer)

    def _revision_of(self, run_id: str) -> int:
        found = self._ledgers.get(run_id)
        return 0 if found is None else found.state.revision

    def add(self, run: Run) -> Ledger:
        ledger = self._ledgers[run.id] = Ledger(RunState(run))
        return ledger

    def forget(self, run_ids: Iterable[str]) -> None:
        for run_id in run_ids:
            self._ledgers.pop(run_id, None)
            self._total -= self._weights.pop(run_id, 0)

    def advance(self, run_ids: Iterable[str]) -> None:
        """A commit has changed these, and counted it."""
        for run_id in run_ids:
            self._ledgers[run_id].state.revision += 1

    def settle(self, run_ids: Iterable[str], *, pinned: Container[str] = ()) -> None:
        """After a commit that touched these: drop what has ended and, of what is not `pinned`, what
        was idle for longest."""
        for run_id in run_ids:
            ledger = self._ledgers.get(run_id)
            if ledger is None:
                continue
            if ledger.state.run.status.is_terminal:
                self.forget([run_id])
                continue
            self._ledgers.move_to_end(run_id)
            weight = ledger.weight
            self._total += weight - self._weights.get(run_id, 0)
            self._weights[run_id] = weight
        if self._total > self._capacity:
            self._shrink(pinned)

    def _shrink(self, pinned: Container[str]) -> None:
        newest = next(reversed(self._ledgers))
        for run_id in [each for each in self._ledgers if each not in pinned]:
            if self._total <= self._capacity or run_id == newest:
                break
            self.forget([run_id])
