"""Reads of runs by many who ask at once."""

import asyncio
from collections.abc import Mapping, Sequence

from durable_worker.errors import StoreError
from durable_worker.stores.base import Store
from durable_worker.stores.records import RunState

_Found = Mapping[str, RunState | Exception]


class _Asked:
    def __init__(self) -> None:
        self.run_ids: dict[str, None] = {}
        self.found: _Found | None = None


class Loading:
    """What is asked for while the store is being read is read together, afterwards."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._reading = asyncio.Lock()
        self._next = _Asked()

    async def load(self, run_id: str) -> RunState | None:
        """As `Store.load`: all that was committed before the call is seen. Not to be changed. What
        cannot be made of a run fails only those who ask for it."""
        asked = self._next
        asked.run_ids[run_id] = None
        async with self._reading:
            if asked.found is None:
                if asked is self._next:
                    self._next = _Asked()
                asked.found = await self._read(list(asked.run_ids))
        found = asked.found.get(run_id)
        if isinstance(found, Exception):
            raise found
        return found

    async def _read(self, run_ids: Sequence[str]) -> _Found:
        try:
            return await self._store.load_many(run_ids)
        except StoreError:
            raise
        except Exception as error:  # rows that this release cannot read, of at least one of them
            if len(run_ids) == 1:
                return {run_ids[0]: error}
        each = [await self._read([run_id]) for run_id in run_ids]
        return {run_id: state for found in each for run_id, state in found.items()}
