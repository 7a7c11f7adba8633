"""Reads of runs by many who ask at once."""

import asyncio

from durable_worker.stores.base import Store
from durable_worker.stores.records import RunState


class _Asked:
    def __init__(self) -> None:
        self.run_ids: dict[str, None] = {}
        self.found: dict[str, RunState] | None = None


class Loading:
    """What is asked for while the store is being read is read together, afterwards."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._reading = asyncio.Lock()
        self._next = _Asked()

    async def load(self, run_id: str) -> RunState | None:
        """As `Store.load`: all that was committed before the call is seen. Not to be changed."""
        asked = self._next
        asked.run_ids[run_id] = None
        async with self._reading:
            if asked.found is None:
                if asked is self._next:
                    self._next = _Asked()
                asked.found = await self._store.load_many(list(asked.run_ids))
        return asked.found.get(run_id)
