"""Inputs that other processes have put into the database."""

import asyncio
from collections.abc import Callable

from msgspec.structs import replace

from durable_worker.clock import Clock
from durable_worker.errors import StoreError
from durable_worker.operator.jobs import Job
from durable_worker.operator.lease import Tenure
from durable_worker.operator.letters import letter_of
from durable_worker.operator.log import log
from durable_worker.operator.racing import unless_stopped
from durable_worker.protocol.names import Names
from durable_worker.stores.base import InboxRow, Store, TellingStore
from durable_worker.stores.records import INBOX
from durable_worker.transports.base import ERROR_HEADER, Envelope

PAGE = 500

RARELY = 10
"""So many times less often is looked where the store tells of what comes."""


class Inbox:
    """`run` looks for new rows every `interval` seconds, until it is cancelled; less often, and at
    once when there are some, where the store is a `TellingStore`."""

    def __init__(
        self,
        store: Store,
        *,
        names: Names,
        clock: Clock,
        interval: float,
        offer: Callable[[Job], None],
        tenure: Tenure,
    ) -> None:
        self._store = store
        self._names = names
        self._clock = clock
        self._interval = interval
        self._offer = offer
        self._tenure = tenure
        self._telling = store if isinstance(store, TellingStore) else None
        self._due = asyncio.Event() if self._telling is None else self._telling.submitted
        self._last = 0

    async def run(self) -> None:
        is_due = True
        while True:
            try:
                if is_due or await self._store.has_news():
                    is_due = True
                    await self._take()
                    is_due = False
            except StoreError as error:
                log.error("inbox_unreadable", error=str(error))
            is_due = await self._is_told() or is_due

    def look(self) -> None:
        """This operator has put something there itself."""
        self._due.set()

    async def _is_told(self) -> bool:
        """Rest, until there is something or might be."""
        is_telling = self._telling is not None and self._telling.is_telling
        seconds = self._interval * (RARELY if is_telling else 1)
        await unless_stopped(self._due, self._clock.sleep(seconds))
        is_told = self._due.is_set()
        self._due.clear()
        return is_told

    async def _take(self) -> None:
        while rows := await self._page():
            for row in rows:
                self._offer(self._job(row))
            self._last = rows[-1].id

    async def _page(self) -> list[InboxRow]:
        tenure = self._tenure
        if tenure.shared is None:
            return await self._store.inbox(after=self._last, limit=PAGE)
        return await tenure.shared.take_inbox(tenure.token, limit=PAGE)

    def _job(self, row: InboxRow) -> Job:
        if row.input is not None:
            return Job(input=row.input, inbox_id=row.id)
        reason = "an input in the database that this release of durable-worker cannot read"
        log.error("inbox_row_unreadable", row=row.id)
        envelope = Envelope(type=None, body=row.body, headers={ERROR_HEADER: reason})
        letter = letter_of(envelope, received_at=self._clock.now(), names=self._names)
        return Job(letter=replace(letter, queue=INBOX), inbox_id=row.id)
