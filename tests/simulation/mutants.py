"""The product, made wrong in one place each. The simulation has to notice every one of them."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import pytest
from msgspec.structs import replace

from durable_worker.errors import ConnectionLostError
from durable_worker.operator import engine as engines
from durable_worker.operator import intake as intakes
from durable_worker.operator.consumers import Consumers
from durable_worker.operator.dispatch import Dispatcher
from durable_worker.operator.engine import Engine
from durable_worker.operator.intake import Intake
from durable_worker.operator.session import Session
from durable_worker.operator.signals import Signals
from durable_worker.operator.timers import Timers
from durable_worker.operator.transitions import apply as transitions
from durable_worker.operator.transitions import continuing, decisions
from durable_worker.operator.work import UnitOfWork
from durable_worker.protocol.growing import TurnReader
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.replay import arrivals
from durable_worker.replay.waiting import Waiting
from durable_worker.stores.memory import MemoryStore
from durable_worker.testing.simulation.link import Link, LinkDelivery
from durable_worker.worker import steps as worker_steps
from durable_worker.worker.answers import Answers
from durable_worker.worker.finished import FinishedAttempts
from durable_worker.worker.recorded import RecordedSteps
from durable_worker.worker.steps import StepRunner
from durable_worker.worker.turn_tasks import TurnTasks

Patch = pytest.MonkeyPatch
Mutation = Callable[[Patch], None]

MUTANTS: dict[str, Mutation] = {}


def mutant(mutate: Mutation) -> Mutation:
    MUTANTS[mutate.__name__.replace("_", " ")] = mutate
    return mutate


@contextmanager
def mutated(name: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        MUTANTS[name](patch)
        yield


# The worker


@mutant
def the_worker_does_not_wait_for_the_confirm(patch: Patch) -> None:
    async def unconfirmed(self: Answers, queue: str, envelope: Any) -> None:
        link = cast("Link", self._transport)
        connection = await link.end.ready()
        link.end.there(connection, "publish", lambda: link._publish(queue, envelope))

    patch.setattr(Answers, "_send", unconfirmed)


@mutant
def the_worker_acknowledges_before_it_publishes(patch: Patch) -> None:
    handle = StepRunner.handle

    async def eager(self: StepRunner, task: Any, delivery: Any) -> None:
        await delivery.ack()
        await handle(self, task, delivery)

    patch.setattr(StepRunner, "handle", eager)


@mutant
def the_worker_acknowledges_a_turn_before_it_decides(patch: Patch) -> None:
    handle = TurnTasks.handle

    async def eager(self: TurnTasks, task: Any, delivery: Any) -> None:
        await delivery.ack()
        await handle(self, task, delivery)

    patch.setattr(TurnTasks, "handle", eager)


@mutant
def the_worker_does_not_ask_about_a_repeated_step(patch: Patch) -> None:
    async def holds(self: RecordedSteps, task: Any) -> bool:
        return False

    patch.setattr(RecordedSteps, "holds", holds)


@mutant
def finished_steps_are_remembered_without_their_attempt(patch: Patch) -> None:
    put = FinishedAttempts.put

    def blurred(self: FinishedAttempts, key: Any, result: Any) -> None:
        for attempt in range(1, 10):
            put(self, (key[0], attempt), result)

    patch.setattr(FinishedAttempts, "put", blurred)
    patch.setattr(worker_steps, "may_repeat", lambda delivery: True)


@mutant
def a_kept_body_goes_on_whatever_was_recorded(patch: Patch) -> None:
    patch.setattr(Waiting, "asked_for", lambda self, added: True)
    patch.setattr(Waiting, "delivers_in_order", lambda self, added: True)


@mutant
def results_are_delivered_by_their_numbers(patch: Patch) -> None:
    """A later history may then deliver in another order what a shorter one has delivered."""

    def by_number(event: Any) -> tuple[bool, int, int]:
        return event.kind is not HistoryKind.STEP, 0, event.seq

    patch.setattr(arrivals, "_place", by_number)


@mutant
def a_worker_adds_what_is_new_to_whatever_it_keeps(patch: Patch) -> None:
    def completed(self: TurnReader, task: Any, body: bytes) -> Any:
        history = self._take(task.run_id)
        return replace(task, since=None) if history is None else history.add(task, body)

    patch.setattr(TurnReader, "_completed", completed)


# The operator


@mutant
def a_turn_that_comes_back_is_a_dead_letter(patch: Patch) -> None:
    patch.setattr(intakes, "_returned", lambda envelope: None)


@mutant
def a_turn_that_does_not_reach_its_worker_is_forgotten(patch: Patch) -> None:
    patch.setattr(Session, "_on_astray", lambda self, message: None)


@mutant
def a_decision_of_another_turn_is_applied(patch: Patch) -> None:
    original = transitions.on_decision

    def careless(draft: Any, decision: Any) -> None:
        if not draft.run.status.is_terminal and draft.run.task_id is not None:
            decision = replace(decision, task_id=draft.run.task_id)
        original(draft, decision)

    patch.setattr(transitions, "on_decision", careless)


@mutant
def a_result_of_another_attempt_is_applied(patch: Patch) -> None:
    original = transitions.on_result

    def careless(draft: Any, result: Any, *, attempt: int | None) -> None:
        original(draft, result, attempt=None)

    patch.setattr(transitions, "on_result", careless)


@mutant
def the_operator_acknowledges_before_it_commits(patch: Patch) -> None:
    take = Intake._take

    def eager(self: Intake, delivery: Any, read: Any) -> None:
        self._inlet.done(delivery)
        take(self, delivery, read)

    patch.setattr(Intake, "_take", eager)


@mutant
def the_operator_acknowledges_without_a_commit_what_changes_nothing(patch: Patch) -> None:
    async def commit(self: Engine, jobs: Any, sent: Any) -> Any:
        ledgers = self._context.ledgers
        work = UnitOfWork(self._context, now=self._clock.now())
        try:
            batch, done = await engines._applied(work, jobs, sent)
            if not batch.is_empty:
                self._doubtful = batch, done
                await self._context.store.commit(batch, self._token)
                self._doubtful = None
        except BaseException:
            ledgers.forget(work.seen)
            raise
        ledgers.settle(work.seen)
        return done

    patch.setattr(Engine, "_commit", commit)


@mutant
def a_commit_of_unknown_outcome_is_just_repeated(patch: Patch) -> None:
    async def unknown(self: Engine) -> None:
        return None

    patch.setattr(Engine, "_committed_after_all", unknown)


@mutant
def a_failed_commit_leaves_its_changes_in_memory(patch: Patch) -> None:
    async def commit(self: Engine, jobs: Any, sent: Any) -> Any:
        self._doubtful = None
        work = UnitOfWork(self._context, now=self._clock.now())
        batch, done = await engines._applied(work, jobs, sent)
        await self._context.store.commit(batch, self._token)
        self._context.ledgers.settle(work.seen)
        return done

    patch.setattr(Engine, "_commit", commit)


@mutant
def the_outbox_is_not_sent_after_a_crash(patch: Patch) -> None:
    async def nothing(self: Session, owed: Any) -> None:
        await asyncio.Event().wait()

    patch.setattr(Session, "_resend", nothing)


@mutant
def what_is_owed_is_not_written_down(patch: Patch) -> None:
    finish = UnitOfWork.finish

    def forgetful(self: UnitOfWork, **settled: Any) -> Any:
        batch, done = finish(self, **settled)
        kept = {key: getattr(batch, key) for key in batch.__dataclass_fields__}
        return type(batch)(**{**kept, "outbox_added": ()}), done

    patch.setattr(UnitOfWork, "finish", forgetful)


@mutant
def a_row_counts_as_sent_before_the_broker_has_it(patch: Patch) -> None:
    send = Dispatcher._send

    async def hasty(self: Dispatcher, message: Any) -> None:
        with suppress(ConnectionLostError):
            await send(self, message)

    patch.setattr(Dispatcher, "_send", hasty)


@mutant
def the_fencing_token_is_not_checked(patch: Patch) -> None:
    patch.setattr(MemoryStore, "_check", lambda self, token: self._holder)


@mutant
def timers_of_an_earlier_operator_are_not_read(patch: Patch) -> None:
    async def only_own(self: Timers) -> None:
        due = await self._store.due_timers(self._clock.now(), limit=500)
        if self._next is not None:
            for each in due:
                await self._apply(transitions_due(each))
        self._next = None
        self._rearmed.clear()

    patch.setattr(Timers, "_fire", only_own)


def transitions_due(each: Any) -> Any:
    from durable_worker.stores.inputs import TimerDue

    return TimerDue(run_id=each.run_id, seq=each.seq)


@mutant
def history_that_grows_during_a_turn_asks_for_no_other_turn(patch: Patch) -> None:
    from durable_worker.operator.transitions.draft import Draft

    def grow(self: Draft) -> None:
        if self.run.task_id is None:
            self.start_turn()

    patch.setattr(Draft, "grow", grow)


@mutant
def a_duplicate_of_a_signal_is_another_signal(patch: Patch) -> None:
    match = Signals.match
    counts: dict[str, int] = {}

    async def again(self: Signals, signal: Any) -> Any:
        number = counts[signal.signal_id] = counts.get(signal.signal_id, 0) + 1
        return await match(self, replace(signal, signal_id=f"{signal.signal_id}-{number}"))

    patch.setattr(Signals, "match", again)


@mutant
def a_worker_that_stops_drops_what_it_holds(patch: Patch) -> None:
    def drop(self: StepRunner) -> None:
        for execution in self._executions.values():
            for delivery in execution.deliveries:
                cast("LinkDelivery", delivery).answer(is_done=True)
            execution.give_back()

    patch.setattr(StepRunner, "give_back_waiting", drop)
    patch.setattr(StepRunner, "give_back_all", drop)


@mutant
def requests_are_acknowledged_before_they_are_answered(patch: Patch) -> None:
    answer = Consumers._answer

    async def eager(self: Consumers, delivery: Any, request: Any) -> None:
        await delivery.ack()
        await answer(self, delivery, request)

    patch.setattr(Consumers, "_answer", eager)


@mutant
def signals_that_were_not_taken_are_not_handed_on(patch: Patch) -> None:
    def none(draft: Any, decision: Any) -> list[Any]:
        return []

    patch.setattr(continuing, "_unread", none)


@mutant
def a_run_that_goes_on_as_new_keeps_the_signals_that_came_meanwhile(patch: Patch) -> None:
    unread = continuing._unread

    def known(draft: Any, decision: Any) -> list[Any]:
        return unread(draft, replace(decision, ordered=None))

    patch.setattr(continuing, "_unread", known)


@mutant
def a_run_that_goes_on_as_new_counts_from_the_beginning(patch: Patch) -> None:
    go_on = continuing.continue_as_new

    def again(draft: Any, decision: Any, *, version: Any) -> None:
        go_on(draft, decision, version=version)
        (marker,) = (each for each in draft._changed.values())
        draft._changed = {0: replace(marker, seq=0)}
        draft._withdrawn.discard(0)

    patch.setattr(decisions, "continue_as_new", again)
