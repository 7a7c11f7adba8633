"""To an operator through the database that it works on, without a broker."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Self

from durable_worker.client.port import DEFAULT_TIMEOUT, Revival, RunStart, is_over
from durable_worker.errors import NoOperatorError, RunNotFoundError, StartWaitsError
from durable_worker.protocol.base import Payload
from durable_worker.protocol.control import EngineEvent
from durable_worker.protocol.letters import DeadLetterRecord
from durable_worker.protocol.names import DEFAULT_NAMESPACE
from durable_worker.protocol.runs import (
    Redispatch,
    RunDetail,
    RunPage,
    RunQuery,
    RunRecord,
    StartedRun,
    StartRequest,
)
from durable_worker.stores.base import Store, stored_namespace
from durable_worker.stores.dead_letters import DeadLetters
from durable_worker.stores.inputs import (
    AnyInput,
    CancelRequested,
    Redispatched,
    SignalSent,
    StartRun,
)
from durable_worker.stores.listings import Listings
from durable_worker.stores.records import RunState
from durable_worker.stores.retrying import set_going
from durable_worker.stores.starts import asked_start, json_object, outcome_of
from durable_worker.stores.views import run_detail, run_record, wake_time
from durable_worker.transports.base import DEFAULT_MAX_MESSAGE_BYTES
from durable_worker.transports.limits import check_payload

_POLL = 0.05
_LOOK_ANYWAY = 2.0
"""Seconds after which a wait reads the run even if the database shows no sign of a change."""


_LONGEST_PAUSE = timedelta(milliseconds=200)


def _nothing_to_end() -> None: ...


class StorePort:
    """Reads the tables, and hands inputs to whoever operates the database now or later."""

    def __init__(
        self,
        store: Store,
        *,
        tenant: str = DEFAULT_NAMESPACE,
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
        timeout: timedelta = DEFAULT_TIMEOUT,
    ) -> None:
        self._store = store
        self._max_message_bytes = max_message_bytes
        self._tenant = stored_namespace(tenant)
        self._letters = DeadLetters(store, namespace=self._tenant)
        self._listings = Listings(store, namespace=self._tenant)
        self._timeout = timeout
        self._last_row = 0

    async def __aenter__(self) -> Self:
        await self._store.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        await self._store.__aexit__(kind, error, trace)

    async def start(self, start: RunStart) -> None:
        run_id = start.run_id
        self._check(start.input, f"the input of run {run_id!r}")
        await self._submit(
            StartRun(
                run_id=run_id,
                workflow=start.workflow,
                input=start.input,
                namespace=self._tenant,
                tags=tuple(start.tags),
                search_attributes=json_object(start.search_attributes),
            )
        )

    async def start_anew(self, body: StartRequest, *, request_id: str) -> StartedRun:
        self._check(body.input, f"the input of run {body.run_id!r}")
        asked = asked_start(body, namespace=self._tenant, request_id=request_id)
        await self._submit(asked)
        try:
            async with asyncio.timeout(self._timeout.total_seconds()):
                while True:
                    started = await outcome_of(self._store, asked)
                    if started is not None:
                        return started
                    await asyncio.sleep(_POLL)
        except TimeoutError:
            raise NoOperatorError(
                f"no operator has taken up the start of run {body.run_id!r} within "
                f"{self._timeout.total_seconds():g} s; it is recorded and will be, once "
                f"`durable-worker dev` or `durable-worker operator` works on this database"
            ) from None

    async def is_taken_up(self, *, within: timedelta) -> bool:
        try:
            async with asyncio.timeout(within.total_seconds()):
                while True:
                    if not await self._is_waiting(self._last_row):
                        return True
                    await asyncio.sleep(_POLL)
        except TimeoutError:
            return False

    async def detail(self, run_id: str) -> RunDetail:
        found = await self._find(run_id)
        if isinstance(found, RunState):
            return run_detail(found)
        raise StartWaitsError(run_id)

    async def list(self, query: RunQuery) -> Sequence[RunRecord]:
        return await self._listings.records(query)

    async def page(self, query: RunQuery, *, after: str | None) -> RunPage:
        return await self._listings.page(query, after=after)

    async def signal(self, name: str, payload: Payload, *, signal_id: str) -> None:
        # The form that an operator gives the id of a signal over the broker: one id, one signal,
        # whichever way it comes.
        self._check(payload, f"the payload of signal {name!r}")
        tenants_id = f"{self._tenant}/{signal_id}"
        await self._submit(
            SignalSent(signal_id=tenants_id, namespace=self._tenant, name=name, payload=payload)
        )

    async def cancel(self, run_id: str, *, compensate: bool | None) -> None:
        await self._find(run_id)
        await self._submit(CancelRequested(run_id=run_id, is_final=compensate is False))

    async def set_going(self, asked: Revival, *, request_id: str) -> None:
        state = await self._find(asked.run_id)
        if isinstance(state, StartRun):
            raise StartWaitsError(asked.run_id)
        if isinstance(asked, Redispatch):
            await self._submit(Redispatched(run_id=asked.run_id))
        else:
            for value in set_going(state, asked, signal_id=f"{self._tenant}/{request_id}"):
                await self._submit(value)
        await self.is_taken_up(within=self._timeout)

    async def dead_letters(
        self, *, limit: int | None, after: str | None, run_id: str | None
    ) -> Sequence[DeadLetterRecord]:
        return await self._letters.page(limit=limit, after=after, run_id=run_id)

    async def dead_letter(self, letter_id: str) -> DeadLetterRecord:
        return await self._letters.shown(letter_id)

    async def redrive(self, letter_id: str) -> DeadLetterRecord:
        asked = await self._letters.request(letter_id)
        if asked is not None:
            await self._submit(asked)
        return await self._letters.redriven(letter_id)

    async def wait(self, run_id: str, *, or_parked: bool) -> RunRecord:
        clock = asyncio.get_running_loop().time
        look_at = 0.0
        while True:
            if await self._store.has_news() or clock() >= look_at:
                look_at = clock() + _LOOK_ANYWAY
                state = await self._load(run_id)
                if state is not None:
                    run = run_record(state.run, wake_at=wake_time(state.pending.values()))
                    if is_over(run, or_parked=or_parked):
                        return run
            await asyncio.sleep(_POLL)

    @property
    def longest_pause(self) -> timedelta:
        return _LONGEST_PAUSE

    def follow(self, run_id: str, notice: Callable[[EngineEvent], None]) -> Callable[[], None]:  # noqa: ARG002
        """A database tells of no events, so it is looked at all the more often."""
        return _nothing_to_end

    def _check(self, payload: Payload, what: str) -> None:
        check_payload(payload, what, max_bytes=self._max_message_bytes)

    async def _find(self, run_id: str) -> RunState | StartRun:
        """The run, or its start that waits for an operator; this tenant's, else
        `RunNotFoundError`."""
        state = await self._store.load(run_id)
        if state is None:
            waiting = await self._waiting_start(run_id)
            # It may have been taken up between the two looks.
            state = await self._store.load(run_id)
            if state is None and waiting is not None and self._is_mine(waiting.namespace):
                return waiting
        if state is None or not self._is_mine(state.run.namespace):
            raise RunNotFoundError(run_id)
        return state

    async def _load(self, run_id: str) -> RunState | None:
        state = await self._store.load(run_id)
        return state if state is not None and self._is_mine(state.run.namespace) else None

    def _is_mine(self, namespace: str) -> bool:
        return stored_namespace(namespace) == self._tenant

    async def _submit(self, value: AnyInput) -> None:
        self._last_row = await self._store.submit(value)

    async def _is_waiting(self, row: int) -> bool:
        found = await self._store.inbox(after=row - 1, limit=1)
        return bool(found) and found[0].id == row

    async def _waiting_start(self, run_id: str) -> StartRun | None:
        """The one that will become the run: of many with one id, the first."""
        rows = await self._store.inbox(after=0, limit=10_000)
        starts = (each.input for each in rows if isinstance(each.input, StartRun))
        return next((each for each in starts if each.run_id == run_id), None)
