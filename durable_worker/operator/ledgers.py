"""Runs in memory. They are valid there because this process holds the lease."""

from bisect import insort
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Raw

from durable_worker.protocol.tasks import HistoryEvent, HistoryKind
from durable_worker.stores.base import Store
from durable_worker.stores.records import Checkpoint, Run, RunState

_encode = msgspec.json.Encoder().encode


class Ledger:
    """A run's state, with each event of its history encoded once."""

    __slots__ = ("_bytes", "_encoded", "_seqs", "state")

    def __init__(self, state: RunState) -> None:
        self.state = state
        self._seqs: list[int] = []
        self._encoded: dict[int, bytes] = {}
        self._bytes = len(state.run.input) if isinstance(state.run.input, Raw) else 0
        self._take_in(state.checkpoints[seq] for seq in sorted(state.checkpoints))

    def absorb(
        self, run: Run | None, checkpoints: Sequence[Checkpoint], withdrawn: Iterable[int] = ()
    ) -> None:
        self.state.absorb(run, checkpoints, withdrawn)
        for seq in withdrawn:
            self._leave_out(seq)
        self._take_in(checkpoints)

    def _take_in(self, checkpoints: Iterable[Checkpoint]) -> None:
        for each in checkpoints:
            if each.is_history:
                if each.seq not in self._encoded:
                    insort(self._seqs, each.seq)
                encoded = encode_event(each)
                self._bytes += len(encoded) - len(self._encoded.get(each.seq, b""))
                self._encoded[each.seq] = encoded
            elif each.seq in self._encoded:
                self._leave_out(each.seq)

    def _leave_out(self, seq: int) -> None:
        if seq in self._encoded:
            self._bytes -= len(self._encoded.pop(seq))
            self._seqs.remove(seq)

    @property
    def weight(self) -> int:
        """In kilobytes, roughly: an output is held both in its checkpoint and in its event."""
        return 1 + len(self.state.checkpoints) + self._bytes // 512

    def history(self) -> bytes:
        """The JSON array of a `WorkflowTask`."""
        return b"[" + b",".join([self._encoded[seq] for seq in self._seqs]) + b"]"


def encode_event(checkpoint: Checkpoint) -> bytes:
    is_named = checkpoint.kind not in (HistoryKind.SIGNAL, HistoryKind.CHILD)
    return _encode(
        HistoryEvent(
            seq=checkpoint.seq,
            kind=checkpoint.kind,
            name=checkpoint.name if is_named else None,
            output=checkpoint.output,
            error=checkpoint.error,
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

    def held(self, run_id: str) -> Ledger:
        """A ledger that is known to be in memory: nothing leaves it within a transaction."""
        return self._ledgers[run_id]

    async def get(self, run_id: str) -> Ledger | None:
        found = self._ledgers.get(run_id)
        if found is None:
            await self.fetch([run_id])
            found = self._ledgers.get(run_id)
        return found

    async def fetch(self, run_ids: Iterable[str]) -> None:
        """Bring into memory what exists of these."""
        missing = [run_id for run_id in dict.fromkeys(run_ids) if run_id not in self._ledgers]
        if missing:
            for run_id, state in (await self._store.load_many(missing)).items():
                self._ledgers[run_id] = Ledger(state)

    def add(self, run: Run) -> Ledger:
        ledger = self._ledgers[run.id] = Ledger(RunState(run))
        return ledger

    def forget(self, run_ids: Iterable[str]) -> None:
        for run_id in run_ids:
            self._ledgers.pop(run_id, None)
            self._total -= self._weights.pop(run_id, 0)

    def settle(self, run_ids: Iterable[str]) -> None:
        """After a commit that touched these: drop what has ended and what was idle for longest."""
        for run_id in run_ids:
            ledger = self._ledgers.get(run_id)
            if ledger is None:
                continue
            if ledger.state.run.status.is_terminal:
                self.forget([run_id])
                continue
            self._ledgers.move_to_end(run_id)
            self._total += ledger.weight - self._weights.get(run_id, 0)
            self._weights[run_id] = ledger.weight
        while self._total > self._capacity and len(self._ledgers) > 1:
            self.forget([next(iter(self._ledgers))])
