"""An operator on a transport and a store, until told to stop."""

import asyncio
from collections.abc import Callable, Sequence

from msgspec import UNSET

from durable_worker.clock import Chance, Clock, SystemChance, SystemClock, ordered_id
from durable_worker.edge.followers import Followers
from durable_worker.errors import NoOperatorError, RunNotFoundError, StoreError
from durable_worker.operator.lease import LeaseKeeper, Tenure, shared_store
from durable_worker.operator.log import log
from durable_worker.operator.options import OperatorOptions
from durable_worker.operator.racing import ended, first_error, unless_stopped
from durable_worker.operator.session import Session
from durable_worker.protocol.base import Payload
from durable_worker.protocol.control import EngineEvent, EngineEventType
from durable_worker.protocol.letters import DeadLetterRecord
from durable_worker.protocol.names import Names
from durable_worker.protocol.runs import (
    ContinueRun,
    Redispatch,
    RetryRun,
    RunDetail,
    RunPage,
    RunQuery,
    RunRecord,
    RunStatus,
    StartedRun,
    StartRequest,
)
from durable_worker.stores.base import SharedStore, Store, stored_namespace
from durable_worker.stores.dead_letters import DeadLetters
from durable_worker.stores.inputs import (
    AnyInput,
    CancelRequested,
    Redispatched,
    SignalSent,
    StartRun,
)
from durable_worker.stores.listings import Listings
from durable_worker.stores.processes import this_process
from durable_worker.stores.records import Run
from durable_worker.stores.retrying import set_going
from durable_worker.stores.starts import asked_start, outcome_of
from durable_worker.stores.views import run_detail, run_record
from durable_worker.transports.base import Transport

_ENDS_SECONDS = 0.25
"""How often it is looked whether a run has ended elsewhere, while somebody waits for it."""


class OperatorService:
    """Sole writer of the store, or one of several where it is a `SharedStore` and the transport
    durable. Use once: `serve` returns after `request_stop`.

    Store and transport are entered by the caller, and outlive `serve`. The other methods are for
    whoever embeds the operator; those that change something wait until it serves.
    """

    def __init__(
        self,
        store: Store,
        transport: Transport,
        *,
        names: Names,
        options: OperatorOptions | None = None,
        clock: Clock | None = None,
        chance: Chance | None = None,
    ) -> None:
        self._store = store
        self._transport = transport
        self._names = names
        self._letters = DeadLetters(store, namespace=stored_namespace(names.namespace))
        self._options = options or OperatorOptions()
        self._clock = clock or SystemClock()
        self._chance = chance or SystemChance()
        self._owner = this_process(f"operator-{self._chance.new_id().hex[:12]}")
        self._stop = asyncio.Event()
        self._has_begun = asyncio.Event()
        self._session: Session | None = None
        self._waiting: dict[str, list[asyncio.Future[Run]]] = {}
        self._followers = Followers()

    def request_stop(self) -> None:
        """Take nothing more, commit what has been taken, let go of the store."""
        self._stop.set()

    async def serve(self) -> None:
        """Raises `BrokerRefusedError`, `LeaseLostError`, and `StoreError` or `StoreFullError` once
        the store has refused to write for too long; no message is lost then."""
        try:
            await self._serve()
        except BaseExceptionGroup as group:
            raise first_error(group) from None
        finally:
            self._session = None
            self._stop.set()
            self._has_begun.set()
            for waiting in self._waiting.values():
                for each in waiting:
                    if not each.done():
                        each.set_exception(_stopped())

    async def _serve(self) -> None:
        shared = shared_store(self._store, self._transport)
        keeper = LeaseKeeper(
            self._store, self._owner, options=self._options, clock=self._clock, shared=shared
        )
        if not await unless_stopped(self._stop, self._transport.wait_connected()):
            return
        lease = await unless_stopped(self._stop, keeper.acquire())
        if not lease:
            return
        tenure = Tenure(
            self._store,
            self._owner,
            lease[0],
            since=keeper.asked_at,
            options=self._options,
            clock=self._clock,
            shared=shared,
        )
        session = Session(
            self._store,
            self._transport,
            names=self._names,
            options=self._options,
            clock=self._clock,
            new_id=self._new_id,
            tenure=tenure,
            instance_id=self._owner.instance_id,
            on_ended=self._on_ended,
            on_events=self._followers.tell,
        )
        try:
            async with asyncio.TaskGroup() as group:
                beside = [group.create_task(tenure.keep())]
                if shared is not None:
                    beside.append(group.create_task(self._hear_of_ends(shared)))
                self._session = session
                self._has_begun.set()
                await session.run(self._stop)
                await ended(beside)
        finally:
            await tenure.release()
            log.info("operator_stopped")

    async def _hear_of_ends(self, store: SharedStore) -> None:
        """Runs that somebody waits for here may end elsewhere."""
        while True:
            await self._clock.sleep(_ENDS_SECONDS)
            if not self._waiting:
                continue
            try:
                for run in await store.ended_runs(list(self._waiting)):
                    self._on_ended(run)
            except StoreError as error:
                log.warning("ends_not_read", error=str(error))

    async def _apply(self, value: AnyInput) -> None:
        await self._has_begun.wait()
        if self._session is None:
            raise _stopped()
        await self._session.applied(value)

    async def _recorded(self) -> None:
        """What somebody may have seen happen is seen in the store as well."""
        if self._session is not None:
            await self._session.recorded()

    async def start(
        self,
        workflow: str,
        payload: Payload,
        *,
        run_id: str | None = None,
        namespace: str | None = None,
        tags: Sequence[str] = (),
        search_attributes: Payload = UNSET,
    ) -> str:
        """Start a run, once for each `run_id`; returns its id when it is recorded."""
        value = StartRun(
            run_id=run_id or str(ordered_id(self._chance.new_id(), now=self._clock.now())),
            workflow=workflow,
            input=payload,
            namespace=stored_namespace(namespace),
            partition=self._options.partition,
            tags=tuple(tags),
            search_attributes=search_attributes,
        )
        await self._apply(value)
        return value.run_id

    async def start_anew(
        self, body: StartRequest, *, request_id: str, namespace: str | None = None
    ) -> StartedRun:
        """Start a run as `reuse` says, once for each `request_id`. Raises `RunExistsError`."""
        asked = asked_start(
            body,
            namespace=stored_namespace(namespace),
            request_id=request_id,
            partition=self._options.partition,
        )
        await self._apply(asked)
        started = await outcome_of(self._store, asked)
        assert started is not None
        return started

    async def signal(
        self,
        name: str,
        payload: Payload,
        *,
        signal_id: str | None = None,
        namespace: str | None = None,
    ) -> None:
        """Deliver a signal to the oldest wait for it, or keep it for the next one."""
        await self._apply(
            SignalSent(
                signal_id=signal_id or self._new_id(),
                namespace=stored_namespace(namespace),
                name=name,
                payload=payload,
            )
        )

    async def cancel(self, run_id: str, *, is_final: bool = False) -> None:
        """Raises `RunNotFoundError`. A run that has ended stays as it is."""
        await self._run(run_id)
        await self._apply(CancelRequested(run_id=run_id, is_final=is_final))

    async def set_going(
        self, asked: RetryRun | ContinueRun | Redispatch, *, request_id: str | None = None
    ) -> None:
        """Raises `RunNotFoundError`, `NotStoppedError`."""
        state = await self._store.load(asked.run_id)
        if state is None:
            raise RunNotFoundError(asked.run_id)
        if isinstance(asked, Redispatch):
            await self._apply(Redispatched(run_id=asked.run_id))
            return
        for value in set_going(state, asked, signal_id=request_id or self._new_id()):
            await self._apply(value)

    async def detail(self, run_id: str) -> RunDetail:
        """Raises `RunNotFoundError`."""
        await self._recorded()
        state = await self._store.load(run_id)
        if state is None:
            raise RunNotFoundError(run_id)
        detail = run_detail(state)
        return detail if self._session is None else self._session.live.enrich(detail)

    async def list(self, query: RunQuery) -> list[RunRecord]:
        await self._recorded()
        return await self._listings(query).records(query)

    async def page(self, query: RunQuery, *, after: str | None = None) -> RunPage:
        """Raises `RequestRefusedError` for what is no cursor."""
        await self._recorded()
        return await self._listings(query).page(query, after=after)

    def _listings(self, query: RunQuery) -> Listings:
        return Listings(self._store, namespace=stored_namespace(query.namespace))

    async def dead_letters(
        self, *, limit: int | None = None, after: str | None = None, run_id: str | None = None
    ) -> Sequence[DeadLetterRecord]:
        """Of this operator's own namespace, newest first; `after`: the id of the last one seen."""
        return await self._letters.page(limit=limit, after=after, run_id=run_id)

    async def dead_letter(self, letter_id: str) -> DeadLetterRecord:
        """Raises `RequestRefusedError`, as does `redrive`."""
        return await self._letters.shown(letter_id)

    async def redrive(self, letter_id: str) -> DeadLetterRecord:
        """Have done again what a dead letter is about, once."""
        asked = await self._letters.request(letter_id)
        if asked is not None:
            await self._apply(asked)
        return await self._letters.redriven(letter_id)

    async def wait(self, run_id: str) -> RunRecord:
        """The run once it has ended. Raises `RunNotFoundError`, or `NoOperatorError` if the
        operator stops before."""
        ended: asyncio.Future[Run] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(run_id, []).append(ended)
        try:
            if self._session is None or not self._session.advances(run_id):
                run = await self._run(run_id)
                if run.status.is_terminal:
                    return run_record(run)
            if self._stop.is_set() and self._session is None:
                raise _stopped()
            return run_record(await ended)
        finally:
            waiting = self._waiting[run_id]
            waiting.remove(ended)
            if not waiting:
                del self._waiting[run_id]

    async def wait_or_parked(self, run_id: str) -> RunRecord:
        """As `wait`; also once the run is parked."""
        parked = asyncio.Event()

        def notice(event: EngineEvent) -> None:
            if event.type is EngineEventType.RUN_BLOCKED:
                parked.set()

        unfollow = self.follow(run_id, notice)
        ended = asyncio.ensure_future(self.wait(run_id))
        blocked = asyncio.ensure_future(parked.wait())
        try:
            run = await self._run(run_id)
            if run.status is not RunStatus.BLOCKED:
                await asyncio.wait({ended, blocked}, return_when=asyncio.FIRST_COMPLETED)
                if ended.done():
                    return ended.result()
                run = await self._run(run_id)
            return run_record(run)
        finally:
            unfollow()
            ended.cancel()
            blocked.cancel()

    def follow(self, run_id: str, notice: Callable[[EngineEvent], None]) -> Callable[[], None]:
        """Hear of what happens to a run, from its commit on, until what is returned is called."""
        return self._followers.add(run_id, notice)

    def _new_id(self) -> str:
        return str(self._chance.new_id())

    async def _run(self, run_id: str) -> Run:
        state = await self._store.load(run_id)
        if state is None:
            raise RunNotFoundError(run_id)
        return state.run

    def _on_ended(self, run: Run) -> None:
        for each in self._waiting.get(run.id, ()):
            if not each.done():
                each.set_result(run)


def _stopped() -> NoOperatorError:
    return NoOperatorError("the operator of this process has stopped")
