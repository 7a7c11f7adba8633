"""One tenure of the lease: everything that runs between acquiring and releasing it."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from datetime import timedelta
from typing import Any

from msgspec.structs import replace

from durable_worker.clock import Clock
from durable_worker.errors import LeaseLostError, StoreError, TransportError
from durable_worker.operator.admission import Admission
from durable_worker.operator.ahead import Ahead, Going
from durable_worker.operator.announcements import Announcer
from durable_worker.operator.consumers import Consumers, Receivers
from durable_worker.operator.context import Consequences, WorkContext
from durable_worker.operator.dispatch import Dispatcher, DispatchEvents
from durable_worker.operator.engine import Engine
from durable_worker.operator.inbox import Inbox
from durable_worker.operator.intake import Inlet, Intake
from durable_worker.operator.jobs import Job
from durable_worker.operator.lease import Tenure
from durable_worker.operator.ledgers import Ledgers
from durable_worker.operator.letters import letter_of
from durable_worker.operator.live import LiveReports, TurnWatch
from durable_worker.operator.log import log
from durable_worker.operator.messages import Outgoing, owes
from durable_worker.operator.options import OperatorOptions
from durable_worker.operator.presence import Presence
from durable_worker.operator.racing import ended
from durable_worker.operator.registry import Registry
from durable_worker.operator.reports import tell_of
from durable_worker.operator.requests import Requests, Sources
from durable_worker.operator.timers import SharedTimers, Timers
from durable_worker.operator.transitions.effects import Limits
from durable_worker.operator.transitions.events import event_of
from durable_worker.protocol.control import EngineEvent
from durable_worker.protocol.names import Names
from durable_worker.stores.base import Store
from durable_worker.stores.inputs import (
    AnyInput,
    StepLost,
    StepPoisoned,
    TurnLost,
    TurnPoisoned,
)
from durable_worker.stores.records import OutboxRow, Run
from durable_worker.transports.base import Transport

LAST_SENDS_SECONDS = 5.0
SIGNAL_MEMORY_MS = 24 * 3600 * 1000
"""How long the id of a consumed signal is known, so that a duplicate is dropped."""
_HOUR_SECONDS = 3600.0
_MINUTE_SECONDS = 60.0
_WATCH_SECONDS = 1.0


class Session:
    def __init__(
        self,
        store: Store,
        transport: Transport,
        *,
        names: Names,
        options: OperatorOptions,
        clock: Clock,
        new_id: Callable[[], str],
        tenure: Tenure,
        instance_id: str,
        on_ended: Callable[[Run], None],
        on_events: Callable[[Iterable[EngineEvent]], None],
    ) -> None:
        self._store = store
        self._transport = transport
        self._names = names
        self._options = options
        self._clock = clock
        self._new_id = new_id
        self._tenure = tenure
        self._on_ended = on_ended
        self._on_events = on_events
        self.live = LiveReports()
        self._registry = Registry(clock.monotonic)
        self._ledgers = Ledgers(store, capacity=options.cached_checkpoints)
        shared = tenure.shared
        self._is_in_doubt = False
        limits = Limits(recoveries=options.recoveries)
        going = Going(is_sure=tenure.is_sure, send=self._send)
        ahead = None if transport.is_durable else Ahead(self._ledgers, names, limits, going)
        self._engine = Engine(
            WorkContext(
                store,
                self._ledgers,
                names,
                limits,
                self._registry.newest_version,
                transport.is_durable,
                shared,
                ahead,
            ),
            tenure=tenure,
            options=options,
            clock=clock,
            aftermath=self._follow_up,
            on_doubt=self._doubt,
        )
        offer = self._engine.offer
        self._admission = Admission(options.tenant_keys, store=store, now=clock.now)
        self._announcer = Announcer(
            transport, names, instance_id=instance_id, tells_events=options.tells_events
        )
        self._dispatcher = Dispatcher(
            transport,
            DispatchEvents(self._on_sent, self._on_astray, self._on_refused, self._is_wanted),
        )
        self._timers = Timers(
            store if shared is None else SharedTimers(shared, tenure),
            clock=clock,
            apply=self._engine.applied,
            looks_again=shared is not None,
        )
        self._inbox = Inbox(
            store,
            names=names,
            clock=clock,
            interval=options.inbox_interval.total_seconds(),
            offer=offer,
            tenure=tenure,
        )
        self._presence = Presence(
            store,
            transport,
            names=names,
            registry=self._registry,
            clock=clock,
            instance_id=instance_id,
            offer=offer,
        )
        self._watch = TurnWatch(
            silence=options.silence.total_seconds(),
            monotonic=clock.monotonic,
            registry=self._registry,
            peek=self._ledgers.peek,
        )
        self._consumers = Consumers(
            transport,
            names,
            receivers=Receivers(
                Requests(
                    Sources(
                        store,
                        self._registry,
                        self.live,
                        self._engine.applied,
                        is_shared=self._admission.is_required,
                        partition=options.partition,
                    )
                ),
                self.live,
                self._watch,
                self._presence,
                self._announcer,
                self._admission,
                self._on_progress,
            ),
            intake=self._intake,
            offer=offer,
        )

    def _intake(self, inlet: Inlet) -> Intake:
        return Intake(
            inlet,
            names=self._names,
            partition=self._options.partition,
            admission=self._admission,
            new_id=self._new_id,
            now=self._clock.now,
        )

    def advances(self, run_id: str) -> bool:
        """Whether the run is known to be going on; False says nothing."""
        state = self._ledgers.peek(run_id)
        # One that has ended is here for a late message only: nothing more happens to it.
        return state is not None and not state.run.status.is_terminal

    async def applied(self, value: AnyInput) -> None:
        await self._engine.applied(value)

    async def recorded(self) -> None:
        await self._engine.recorded()

    async def run(self, stop: asyncio.Event) -> None:
        """Operate until `stop`; what has been taken by then is committed."""
        owed: Sequence[OutboxRow] = ()
        if self._tenure.shared is not None:
            owed = await self._tenure.shared.adopt(self._tenure.token)
        elif self._transport.is_durable:
            owed = await self._store.outbox()
        else:
            await self._recover()
        async with asyncio.TaskGroup() as group:
            advancing = group.create_task(self._engine.run())
            background = [group.create_task(each) for each in self._background()]
            feeding = [group.create_task(each) for each in self._feeding(owed)]
            subscriptions = await self._consumers.subscribe(prefetch=self._options.prefetch)
            # Workers are asked who they are once their answers can be heard.
            feeding.append(group.create_task(self._presence.run()))
            try:
                await stop.wait()
            finally:
                for each in subscriptions:
                    await each.stop()
            await ended(feeding)
            self._engine.close()
            await advancing
            await self._finish()
            await ended(background)

    def _background(self) -> list[Coroutine[Any, Any, None]]:
        return [self._dispatcher.run(), self._announcer.run(), self._consumers.run()]

    def _feeding(self, owed: Sequence[OutboxRow]) -> list[Coroutine[Any, Any, None]]:
        """What offers inputs by itself, and must have stopped before the engine does."""
        return [
            self._timers.run(),
            self._inbox.run(),
            self._resend(owed),
            self._take_over(),
            self._watch_turns(),
            self._forget_signals(),
            self._forget_letters(),
        ]

    async def _finish(self) -> None:
        await self._consumers.finish()
        try:
            async with asyncio.timeout(LAST_SENDS_SECONDS):
                await self._dispatcher.drained()
        except TimeoutError:
            pass  # what is not sent stays in the outbox
        await self._engine.flush()
        await self._announcer.flush()

    async def _recover(self) -> None:
        """The transport has forgotten everything: send all that is out once more."""
        work = await self._store.pending_work()
        is_counted = self._tenure.is_takeover
        for turn in work.turns:
            lost = TurnLost(run_id=turn.run_id, task_id=turn.task_id, is_counted=is_counted)
            self._engine.offer(Job(input=lost))
        for step in work.steps:
            self._engine.offer(
                Job(
                    input=StepLost(
                        run_id=step.run_id,
                        seq=step.seq,
                        attempt=step.attempt,
                        recoveries=step.recoveries,
                        is_counted=is_counted,
                    )
                )
            )

    async def _resend(self, owed: Sequence[OutboxRow]) -> None:
        # Answers that are queued already make most of it moot.
        await self._clock.sleep(self._options.resend_delay.total_seconds())
        for row in owed:
            self._engine.offer(Job(resend=row))

    async def _take_over(self) -> None:
        """Send what members owe that have died, and what this one may have failed to."""
        store = self._tenure.shared
        if store is None:
            return
        while True:
            await self._clock.sleep(self._options.lease_ttl.total_seconds() / 10)
            token = self._tenure.token
            try:
                owed = await store.adopt(token)
                if self._is_in_doubt:
                    self._is_in_doubt = False
                    owed = await store.owed_by(token)
            except StoreError as error:
                log.warning("others_not_looked_after", error=str(error))
                continue
            if owed:
                log.info("messages_taken_over", count=len(owed))
                self._presence.look_again()
            for row in owed:
                self._engine.offer(Job(resend=row))

    def _doubt(self) -> None:
        self._is_in_doubt = True

    async def _watch_turns(self) -> None:
        while True:
            await self._clock.sleep(_WATCH_SECONDS)
            silent = self._watch.silent()
            if silent and self._tenure.shared is not None:
                try:
                    states = await self._store.load_many(silent)
                except StoreError as error:
                    log.warning("turns_not_looked_after", error=str(error))
                    continue
                for run_id in silent:
                    state = states.get(run_id)
                    self._watch.correct(run_id, None if state is None else state.run.task_id)
            for job in self._watch.lost():
                self._engine.offer(job)

    async def _forget_signals(self) -> None:
        async def forget(token: int) -> None:
            before = self._clock.now() - SIGNAL_MEMORY_MS
            await self._store.forget_signals(token, consumed_before=before)

        await self._tidy(forget, every=_HOUR_SECONDS)

    async def _forget_letters(self) -> None:
        age, kept = self._options.dead_letter_age, self._options.dead_letters_kept

        async def forget(token: int) -> None:
            before = self._clock.now() - age // timedelta(milliseconds=1)
            count = await self._store.forget_dead_letters(token, received_before=before, kept=kept)
            if count:
                log.warning("dead_letters_forgotten", count=count)

        await self._tidy(forget, every=_MINUTE_SECONDS)

    async def _tidy(self, work: Callable[[int], Awaitable[None]], *, every: float) -> None:
        """Now and then, under the token that there is then."""
        while True:
            token = self._tenure.token
            try:
                await work(token)
            except LeaseLostError:
                if not await self._tenure.regain(token):
                    raise
                continue
            except StoreError as error:
                log.warning("store_not_tidied", error=str(error))
            await self._clock.sleep(every)

    def _follow_up(self, done: Consequences) -> None:
        """What a committed transaction asked for."""
        self._send(done.outgoing)
        for cancelled in done.cancelled:
            self._announcer.cancel(cancelled)
        self._announcer.events(done.events)
        self._on_events(map(event_of, done.events))
        if done.earliest_timer is not None:
            self._timers.arm(done.earliest_timer)
        if done.has_put_off:
            self._inbox.look()
        for run in done.unserved:
            self._presence.need_workflow(run)
        for run in done.ended:
            self._on_ended(run)
        tell_of(done)

    def _send(self, outgoing: Sequence[Outgoing]) -> None:
        self._dispatcher.post(outgoing)
        for each in outgoing:
            if each.token:
                self._presence.need(each.token)

    def _on_progress(self, event: EngineEvent) -> None:
        """A running step reports: whoever follows the run hears of it."""
        state = self._ledgers.peek(event.run_id)
        if state is not None:
            told = replace(event, namespace=state.run.namespace, workflow=state.run.workflow)
            self._announcer.progress(told)
            self._on_events([told])

    def _on_sent(self, message: Outgoing) -> None:
        self._engine.note_sent(message.row.key)

    def _on_refused(self, message: Outgoing, error: TransportError) -> None:
        row, reason, code = message.row, str(error), error.code or "unsendable"
        if row.is_letter:
            self._keep_again(message, reason)
            return
        if row.seq is None:
            failed: AnyInput = TurnPoisoned(
                run_id=row.run_id, task_id=row.key, reason=reason, code=code
            )
        else:
            failed = StepPoisoned(
                run_id=row.run_id, seq=row.seq, reason=reason, code=code, attempt=row.attempt
            )
        # The row stays until the failure is committed: else a crash in between would lose both.
        self._engine.offer(Job(input=failed, settle=lambda: self._engine.note_sent(row.key)))

    def _on_astray(self, message: Outgoing) -> None:
        """The whole of it goes to everybody who serves the workflow."""
        self._engine.offer(Job(resend=message.row))

    def _keep_again(self, message: Outgoing, reason: str) -> None:
        """A dead letter that cannot be sent again after all."""
        letter = letter_of(message.envelope, received_at=self._clock.now(), names=self._names)
        again = replace(letter, queue=message.queue, reason=f"not sent again: {reason}")
        self._engine.offer(Job(letter=again, settle=lambda: self._on_sent(message)))

    def _is_wanted(self, message: Outgoing) -> bool:
        state = self._ledgers.peek(message.row.run_id)
        return state is None or owes(state, message.row)
