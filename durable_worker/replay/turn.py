"""One run's body, driven turn by turn: (workflow function, WorkflowTask, now) -> decision."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NoReturn, Protocol

from msgspec import UNSET
from msgspec.structs import replace

from durable_worker.errors import DurableError, NondeterminismError, WorkflowStuckError
from durable_worker.protocol.base import Payload
from durable_worker.protocol.commands import (
    AnyCommand,
    DecisionStatus,
    RecordStep,
    StartTimer,
    WorkflowDecision,
)
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.payload import encode_payload
from durable_worker.protocol.tasks import HistoryEvent, HistoryKind, WorkflowTask
from durable_worker.replay.continuing import (
    ContinuedAsNewError,
    continuation_in,
    first_seq_of,
)
from durable_worker.replay.definitions import WorkflowDefinition
from durable_worker.replay.failures import cancellation, failure_of, message_of
from durable_worker.replay.journal import Ended, Journal, TurnAbortedError, raised_at, same_run
from durable_worker.replay.logger import LogSink
from durable_worker.replay.operations import (
    CALL_RETRY,
    CALL_TIMEOUT,
    CANCEL_STEPS,
    DURABLE_TIMERS,
    ORDERED_HISTORY,
    PARK,
    TIMEOUTS,
    RunLocally,
    recorded_event,
)
from durable_worker.replay.waiting import Waiting
from durable_worker.replay.witness import Witness

Outcome = WorkflowDecision | RunLocally

_TRUE = encode_payload(True, what="a marker")


class ContextFactory(Protocol):
    """Makes the context object that the body receives."""

    def __call__(self, replay: "Replay", task: WorkflowTask) -> object: ...


class Replay:
    """Holds one body between turns. Not reusable after a final decision or `dispose`.

    With a `Witness` for its journal it answers no turn: it tells what the body asks for.
    """

    def __init__(
        self,
        definition: WorkflowDefinition,
        task: WorkflowTask,
        context_factory: ContextFactory,
        *,
        journal: Journal | None = None,
    ) -> None:
        self.definition = definition
        self.journal = journal or Journal()
        self.error: BaseException | None = None
        self.waiting = Waiting(self.journal)
        self.now_ms = 0
        self.call_body: Callable[..., Awaitable[object]] = definition.fn
        self.on_failure: Callable[[BaseException], Awaitable[None]] | None = None
        self.log_sink: LogSink | None = None
        """Where `ctx.logger` writes; set before the first turn."""
        self._task = task
        self._context_factory = context_factory
        self._main: asyncio.Task[Payload] | None = None
        self._interruption: BaseException | None = None
        self._ended_by: BaseException | None = None
        self._continued: ContinuedAsNewError | None = None
        self.first_seq = 0
        self._loop = self.waiting.loop
        self._is_disposed = False
        self._limits_attempts = False

    # Turns

    def begin(self, task: WorkflowTask, *, now_ms: int) -> Outcome:
        """Start the body (first call) or go on with a longer history (later calls)."""
        self._task = task
        self.now_ms = now_ms
        self.journal.is_ordered = self.operator_states(ORDERED_HISTORY)
        self.waiting.tells_given_up = self.operator_states(CANCEL_STEPS)
        self.journal.seen = -1 if task.seen is None else task.seen
        self.journal.tell(task.history)
        if self._main is None:
            self.first_seq = first_seq_of(task.history)
            self.waiting.begin_at(self.first_seq)
        for signal in task.pending_signals or ():
            if signal.seq not in self.journal.events:
                event = HistoryEvent(seq=signal.seq, kind=HistoryKind.SIGNAL, output=signal.payload)
                self.journal.assume([event])
        return self._drive()

    def go_on(self, results: Mapping[int, RecordStep]) -> Outcome:
        """Continue after `RunLocally` with the recorded outcome of each of its steps."""
        for record in results.values():
            self.journal.assume([recorded_event(record)])
            self.journal.recorded.append(record)
        return self._drive()

    def can_continue(self, task: WorkflowTask) -> bool:
        """Whether `begin(task)` here decides the same as a replay from the top would."""
        if self._is_disposed or self.journal.is_sealed or not same_run(self._task, task):
            return False
        added = self.journal.is_extended_by(task.history)
        if added is None or not self.waiting.asked_for(added):
            return False
        return self.waiting.delivers_in_order(added)

    def dispose(self) -> None:
        """Unwind the body without effects. Idempotent."""
        if self._is_disposed:
            return
        self._is_disposed = True
        self.journal.is_sealed = True
        if self._loop.is_over and not self.journal.unstarted:
            self._unwind()
        else:
            with self._loop:
                self._unwind()

    def _unwind(self) -> None:
        self.journal.close_unstarted()
        self._loop.dispose()
        self.on_failure = None  # holds on to this, which is freed at once without it
        # What the body ended with is known; asyncio need not complain that nobody asked.
        if self._main is not None and self._main.done() and not self._main.cancelled():
            self._main.exception()

    def _drive(self) -> Outcome:
        with self._loop:
            try:
                if self._main is None:
                    self._main = self._loop.start(self._body(), name=self._task.run_id)
                    self.waiting.main = self._main
                return self._advance(self._main)
            except TurnAbortedError:
                pass
            except DurableError as error:
                self.journal.failure = self.journal.failure or error
        failure = self.journal.failure or WorkflowStuckError("the turn was aborted")
        return self._failed(failure, parks=self.operator_states(PARK) and not self._task.cancel)

    def _explained(self, error: BaseException) -> BaseException:
        """A mismatch with both sides of it by seq: the turn is replayed once more for that."""
        if not isinstance(error, NondeterminismError) or isinstance(self.journal, Witness):
            return error
        events = self.journal.events
        history = [events[seq] for seq in sorted(events)]
        witness = Witness()
        task = replace(self._task, history=history, pending_signals=None)
        again = Replay(self.definition, task, self._context_factory, journal=witness)
        again.begin(task, now_ms=self.now_ms)
        again.dispose()
        return witness.explain(error)

    async def _body(self) -> Payload:
        context = self._context_factory(self, self._task)
        arguments = self.definition.arguments(self._task.input, context)
        try:
            output = await self.call_body(*arguments)
            if self._interruption is not None:
                raise self._interruption
            return encode_payload(output, what=f"the output of workflow {self.definition.name!r}")
        except BaseException as error:
            cause = self._interruption or error
            self._continued = continuation_in(cause)
            if self._continued is not None:
                return UNSET
            self._ended_by = cause
            if self.on_failure is not None:
                await self.on_failure(cause)
            if cause is error:
                raise
            raise cause from None

    def interrupt(self, error: BaseException) -> None:
        """Let the body fail with the error of what runs beside it."""
        if self._interruption is None and self._main is not None and not self._main.done():
            self._interruption = error
            self._main.cancel()

    def continue_as_new(self, input: Payload) -> NoReturn:
        """Leave the body, from whichever of its tasks, to go on with a new history."""
        error = ContinuedAsNewError(input)
        if asyncio.current_task() is not self._main:
            self.interrupt(error)
        raise error

    def _advance(self, main: asyncio.Task[Payload]) -> Outcome:
        waiting = self.waiting
        while True:
            waiting.run_until_idle()
            if main.done():
                return self._finish()
            if waiting.follow_markers():
                continue
            local = waiting.steps_to_run()
            if local:
                return RunLocally(local)
            if waiting.deliver_what_is_there():
                continue
            if not self._task.cancel or waiting.is_cancelled:
                return self._suspend()
            self.journal.unconsumed(waiting.outstanding.values())
            waiting.cancel_here()

    # Decisions

    def _suspend(self) -> WorkflowDecision:
        waiting = self.waiting
        if self.journal.last_seq >= self.journal.next_seq:
            self.journal.unconsumed(waiting.outstanding.values())
        if not waiting.outstanding:
            self.journal.fail(
                WorkflowStuckError(
                    "the workflow waits for something that cannot happen: no step, timer, signal "
                    "or child is outstanding. It awaits an asyncio object that no other part of "
                    "the body will ever set."
                )
            )
        waiting.answer_queries()
        if not self.operator_states(DURABLE_TIMERS):
            waiting.record_deadlines(self.now_ms)
        return self._decision(DecisionStatus.CONTINUE)

    def _finish(self) -> WorkflowDecision:
        assert self._main is not None
        is_cancelled = self._main.cancelled() and self.waiting.is_cancelled
        self._answer_at_the_end()
        unsent = [] if is_cancelled else self._unsent_children()
        if unsent:
            return self._decision(DecisionStatus.CONTINUE, instead=unsent)
        if self.journal.last_seq >= self.journal.next_seq:
            self.journal.unconsumed((), ended=self.ended)
        if is_cancelled:
            return self._decision(DecisionStatus.CANCELLED, error=cancellation(self._ended_by))
        if self._main.cancelled():
            return self._failed(asyncio.CancelledError("the workflow body cancelled itself"))
        error = self._main.exception()
        if error is not None:
            return self._failed(error)
        self.journal.refuse_never_awaited()
        if self._continued is not None:
            decision = self._decision(DecisionStatus.CONTINUED)
            unread = self.journal.unread() or None
            return replace(decision, input=self._continued.input, unread=unread)
        return self._decision(DecisionStatus.COMPLETED, output=self._main.result())

    def _answer_at_the_end(self) -> None:
        """Before what promised children need: the answers of an ended body change no more."""
        while self.waiting.queries.follow():
            pass
        if self.journal.last_seq < self.journal.next_seq:
            self.waiting.answer_queries()

    @property
    def ended(self) -> Ended | None:
        """None while the body goes on."""
        main = self._main
        if main is None or not main.done():
            return None
        error = None if main.cancelled() else main.exception()
        code = inspect.unwrap(self.definition.fn).__code__
        place = (code, code.co_firstlineno)
        if error is None:
            return Ended("the body has ended", place)
        return Ended(f"the body has failed: {message_of(error)}", raised_at(error) or place)

    def _unsent_children(self) -> list[AnyCommand]:
        """Starts of children that a final decision would lose, and a timer that ends the wait.

        An operator applies nothing but what was recorded of the decision that ends a run.
        """
        journal = self.journal
        if not self.waiting.promised:
            return []
        seq = journal.next_seq
        wake = journal.events.get(seq)
        if wake is not None and wake.kind is HistoryKind.TIMER:
            journal.next_seq = seq + 1
            return []
        unsent = self.waiting.unsent()
        return [*unsent, StartTimer(seq=seq, ms=0)] if unsent else []

    def _failed(self, error: BaseException, *, parks: bool = False) -> WorkflowDecision:
        """`parks`: not what the body has let out, but what is wrong with its code."""
        self.error = error = self._explained(error)
        decision = self._decision(DecisionStatus.FAILED, error=failure_of(error, retryable=False))
        return replace(decision, park=True) if parks else decision

    def _decision(
        self,
        status: DecisionStatus,
        *,
        output: Payload = UNSET,
        error: Failure | None = None,
        instead: Sequence[AnyCommand] | None = None,
    ) -> WorkflowDecision:
        """`instead`: what to ask for in place of everything outstanding."""
        recorded = self.journal.recorded
        commands: list[AnyCommand] = [] if self.journal.failure else list(recorded)
        if status is not DecisionStatus.CONTINUE:
            commands += self.waiting.given_up()
        else:
            commands += self.waiting.commands(self.now_ms) if instead is None else instead
        if len(commands) > 1:
            # What is recorded must be in history before what was asked for on account of it.
            commands.sort(key=_seq_of)
        if recorded:
            # What was recorded here is history for the turns to come.
            self.journal.assume([recorded_event(each) for each in recorded])
        return WorkflowDecision(
            task_id=self._task.task_id,
            run_id=self._task.run_id,
            status=status,
            commands=commands,
            output=output,
            error=error,
            ordered=self.journal.last_order if self.journal.is_ordered else None,
        )

    # What the context uses

    @property
    def run_id(self) -> str:
        return self._task.run_id

    @property
    def honours_retry(self) -> bool:
        return self.operator_states(CALL_RETRY)

    def operator_states(self, capability: str) -> bool:
        return capability in (self._task.capabilities or ())

    def patched(self, name: str) -> bool:
        """Whether this run takes the new way; the yes is recorded under `name`."""
        journal = self.journal
        if journal.is_sealed:
            raise TurnAbortedError
        event = journal.events.get(journal.next_seq)
        if event is None:
            is_patched = self.waiting.is_new_ground()
        else:
            is_patched = event.kind is HistoryKind.STEP and event.name == name
        if is_patched:
            self.record(name, lambda: encode_payload(True, what="a patch"))
        return is_patched

    def limits_attempts(self) -> bool:
        """Whether the operator, not the body, gives up attempts at what the body calls now.

        What it was is recorded where it changes, and holds until it changes again.
        """
        journal, is_stated = self.journal, self.operator_states(CALL_TIMEOUT)
        if journal.is_sealed:
            raise TurnAbortedError
        event = journal.events.get(journal.next_seq)
        if event is None:
            has_changed = is_stated is not self._limits_attempts and self.waiting.is_new_ground()
        else:
            has_changed = event.kind is HistoryKind.STEP and event.name == TIMEOUTS
        if has_changed:
            event = self.record(TIMEOUTS, lambda: encode_payload(is_stated, what="a marker"))
            self._limits_attempts = event.output == _TRUE
        return self._limits_attempts

    def record(self, name: str, output: Callable[[], Payload]) -> HistoryEvent:
        """A value that is decided now, once: from history, or `output()` recorded.

        What `output()` raises is recorded too: the event then holds a failure.
        """
        seq = self.journal.take_seq()
        event = self.journal.expect(seq, HistoryKind.STEP, name, must_exist=True)
        if event is None:
            self.journal.produces(seq)
            event = _produced(seq, name, output)
            self.journal.recorded.append(
                RecordStep(seq=seq, name=name, output=event.output, error=event.error)
            )
            self.journal.assume([event])
        return event


def _produced(seq: int, name: str, output: Callable[[], Payload]) -> HistoryEvent:
    try:
        return HistoryEvent(seq=seq, kind=HistoryKind.STEP, name=name, output=output())
    except Exception as error:  # user code
        return HistoryEvent(seq=seq, kind=HistoryKind.STEP, name=name, error=failure_of(error))


def _seq_of(command: AnyCommand) -> int:
    return command.seq
