"""Signals within one transaction: those that arrive, and the waits that they end."""

from collections.abc import Container, Mapping

from msgspec.structs import replace

from durable_worker.operator.oldest import oldest
from durable_worker.operator.transitions.effects import AwaitSignal
from durable_worker.stores.base import Store
from durable_worker.stores.inputs import SignalMatched, SignalSent
from durable_worker.stores.records import Checkpoint, SignalRecord, Waiter


class Signals:
    """`changed` and `withdrawn`: checkpoints as the transaction has them so far. `records` are to
    be written, `taken` the ids of those that were kept before."""

    def __init__(
        self,
        store: Store,
        *,
        now: int,
        changed: Mapping[tuple[str, int], Checkpoint],
        withdrawn: Container[tuple[str, int]],
    ) -> None:
        self._store = store
        self._now = now
        self._changed = changed
        self._withdrawn = withdrawn
        self._begun: dict[tuple[str, str], list[Waiter]] = {}
        self.records: dict[str, SignalRecord] = {}
        self.taken: set[str] = set()

    async def is_known(self, signal_id: str) -> bool:
        return signal_id in self.records or await self._store.signal(signal_id) is not None

    def waits_begun(self) -> list[tuple[str, str]]:
        """The names of waits that found nothing and are still there."""
        return [name for name, known in self._begun.items() if any(map(self._still_waits, known))]

    async def match(self, signal: SignalSent) -> SignalMatched | None:
        """Give a signal to the oldest wait for it, or keep it; a repeated one is ignored."""
        if await self.is_known(signal.signal_id):
            return None
        waiter = await self._oldest_waiter(signal.namespace, signal.name)
        self.records[signal.signal_id] = SignalRecord(
            id=signal.signal_id,
            namespace=signal.namespace,
            name=signal.name,
            payload=signal.payload,
            received_at=self._now if signal.received_at is None else signal.received_at,
            consumed_at=None if waiter is None else self._now,
        )
        if waiter is None:
            return None
        return SignalMatched(run_id=waiter.run_id, seq=waiter.seq, payload=signal.payload)

    async def awaited(self, wait: AwaitSignal) -> SignalMatched | None:
        """Give a wait that begins the oldest signal that was kept for it."""
        signal = await self._oldest_buffered(wait.namespace, wait.signal)
        if signal is None:
            waiters = self._begun.setdefault((wait.namespace, wait.signal), [])
            waiters.append(Waiter(wait.run_id, wait.seq))
            return None
        if signal.id not in self.records:
            self.taken.add(signal.id)
        self.records[signal.id] = replace(signal, consumed_at=self._now)
        return SignalMatched(
            run_id=wait.run_id,
            seq=wait.seq,
            payload=signal.payload,
            received_at=signal.received_at if signal.received_at < self._now else None,
        )

    async def _oldest_waiter(self, namespace: str, name: str) -> Waiter | None:
        found = await oldest(self._store.waiters, namespace, name, self._still_waits)
        begun = self._begun.get((namespace, name), ())
        return found or next((each for each in begun if self._still_waits(each)), None)

    def _still_waits(self, waiter: Waiter) -> bool:
        key = waiter.run_id, waiter.seq
        if key in self._withdrawn:
            return False
        changed = self._changed.get(key)
        return changed is None or changed.is_pending

    async def _oldest_buffered(self, namespace: str, name: str) -> SignalRecord | None:
        buffered = self._store.buffered_signals
        found = await oldest(buffered, namespace, name, lambda each: each.id not in self.records)
        if found is not None:
            return found
        place = (namespace, name)
        arrived = (each for each in self.records.values() if each.consumed_at is None)
        return next((each for each in arrived if (each.namespace, each.name) == place), None)
