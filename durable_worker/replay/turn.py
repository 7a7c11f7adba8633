"""One run's body, driven turn by turn: (workflow function, WorkflowTask, now) -> decision.

A body rests at an *idle point*: nothing in it is ready, it waits for outstanding operations. What
an idle point gets delivered, and in which order, must be the same on every replay although history
does not tell in which order results came. The rule (protocol/README.md, "Markers"):

- a marker at the next seq names exactly what was delivered there;
- else, if all that the body waits for is resolved, it gets all of it, in ascending order of seq;
- else this is the present. It gets what is there, in ascending order, and if the body then asks
  for anything new, a marker that names what was delivered is recorded before that.

Deliveries happen one at a time, and the body runs until it is idle in between.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from msgspec import UNSET

from durable_worker.errors import DurableError, WorkflowStuckError
from durable_worker.protocol.commands import (
    AnyCommand,
    DecisionStatus,
    RecordStep,
    WorkflowDecision,
)
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.payload import encode_payload
from durable_worker.protocol.tasks import HistoryEvent, HistoryKind, WorkflowTask
from durable_worker.replay.definitions import WorkflowDefinition
from durable_worker.replay.failures import failure_of
from durable_worker.replay.journal import Journal, TurnAbortedError, caller_location, same_run
from durable_worker.replay.loop import DeterministicLoop, DurableTimer
from durable_worker.replay.operations import (
    CALL_RETRY,
    DEADLINES,
    DELIVERED,
    DURABLE_TIMERS,
    IdlePoint,
    LocalStep,
    Operation,
    Requested,
    RunLocally,
    Timer,
    deadlines_marker,
    delivered_marker,
    read_deadlines,
    read_delivered,
    whole_milliseconds,
)

Outcome = WorkflowDecision | RunLocally


class ContextFactory(Protocol):
    """Makes the context object that the body receives."""

    def __call__(self, replay: "Replay", task: WorkflowTask) -> object: ...


class Replay:
    """Holds one body between turns. Not reusable after a final decision or `dispose`."""

    def __init__(
        self, definition: WorkflowDefinition, task: WorkflowTask, context_factory: ContextFactory
    ) -> None:
        self.definition = definition
        self.journal = Journal()
        self.loop = DeterministicLoop(self)  # type: ignore[abstract]
        self.now_ms = 0
        self._task = task
        self._context_factory = context_factory
        self._main: asyncio.Task[Any] | None = None
        self._outstanding: dict[int, Operation] = {}
        self._abandoned: dict[int, Operation] = {}
        self._lost_waits: dict[str, list[Requested]] = {}
        self._point: IdlePoint | None = None
        self._is_disposed = False

    # Turns

    def begin(self, task: WorkflowTask, *, now_ms: int) -> Outcome:
        """Start the body (first call) or go on with a longer history (later calls)."""
        self._task = task
        self.now_ms = now_ms
        self.journal.recorded.clear()
        self.journal.extend(task.history)
        self.journal.told_seq = max(self.journal.told_seq, self.journal.last_seq)
        for signal in task.pending_signals or ():
            if signal.seq not in self.journal.events:
                event = HistoryEvent(seq=signal.seq, kind=HistoryKind.SIGNAL, output=signal.payload)
                self.journal.extend([event])
        return self._drive()

    def go_on(self, results: Mapping[int, RecordStep]) -> Outcome:
        """Continue after `RunLocally` with the recorded outcome of each of its steps."""
        for seq, record in results.items():
            event = HistoryEvent(
                seq=seq,
                kind=HistoryKind.STEP,
                name=record.name,
                output=record.output,
                error=record.error,
            )
            self.journal.extend([event])
            self.journal.recorded.append(record)
        return self._drive()

    def can_continue(self, task: WorkflowTask) -> bool:
        """Whether `begin(task)` here decides the same as a replay from the top would."""
        if self._is_disposed or self.journal.is_sealed or not same_run(self._task, task):
            return False
        added = self.journal.is_extended_by(task.history)
        if added is None:
            return False
        if self._point is None or not self._point.delivered:
            return True
        # A replay would deliver in ascending order what is still unrecorded at this idle point.
        latest = max(self._point.delivered)
        return not any(seq < latest and seq in self._point.waiting for seq in added)

    def dispose(self) -> None:
        """Unwind the body without effects. Idempotent."""
        if self._is_disposed:
            return
        self._is_disposed = True
        self.journal.is_sealed = True
        with self.loop.entered():
            self.journal.close_unstarted()
            self.loop.dispose()
            if self._main is not None and self._main.done() and not self._main.cancelled():
                self._main.exception()

    def _drive(self) -> Outcome:
        with self.loop.entered():
            try:
                if self._main is None:
                    self._main = self.loop.create_task(self._body(), name=self._task.run_id)
                return self._advance()
            except TurnAbortedError:
                pass
            except DurableError as error:
                self.journal.failure = self.journal.failure or error
        return self._failed(self.journal.failure or WorkflowStuckError("the turn was aborted"))

    async def _body(self) -> Any:
        context = self._context_factory(self, self._task)
        arguments = self.definition.arguments(self._task.input, context)
        return await self.definition.fn(*arguments)

    def _advance(self) -> Outcome:
        while True:
            self._run_until_idle()
            if self._is_done():
                return self._finish()
            match self.journal.marker():
                case marker if marker == DELIVERED:
                    self._follow_marker()
                    continue
                case marker if marker == DEADLINES:
                    self._read_deadlines()
                    continue
                case _:
                    pass
            local = self._steps_to_run()
            if local:
                return RunLocally(local)
            if not self._deliver_what_is_there():
                return self._suspend()

    def _run_until_idle(self) -> None:
        self.loop.run_until_idle()
        if self.journal.failure is not None:
            raise TurnAbortedError

    def _is_done(self) -> bool:
        return self._main is not None and self._main.done()

    # Deliveries

    def _deliver(self, seq: int) -> None:
        operation = self._outstanding.pop(seq)
        event = self.journal.events[seq]
        if isinstance(operation, Timer):
            if operation.handle is not None:
                self.loop.fire(operation.handle)
        elif operation.future is not None and not operation.future.done():
            operation.future.set_result(event)
        self._run_until_idle()

    def _follow_marker(self) -> None:
        journal = self.journal
        seq = journal.next_seq
        event = journal.events[seq]
        journal.next_seq = seq + 1
        self._point = None
        for delivered in read_delivered(event):
            if delivered not in self._outstanding or delivered not in journal.events:
                waiting = ", ".join(op.describe() for op in self._outstanding.values())
                journal.mismatch(
                    delivered,
                    recorded=f"that the operation of seq {delivered} was delivered next",
                    asked=f"other operations: it waits for {waiting or 'nothing'}",
                    location=self._first_location(),
                )
            self._deliver(delivered)

    def _read_deadlines(self) -> None:
        journal = self.journal
        event = journal.events[journal.next_seq]
        journal.next_seq += 1
        for seq, deadline in read_deadlines(event).items():
            timer = self._outstanding.get(seq)
            if not isinstance(timer, Timer):
                journal.mismatch(
                    seq,
                    recorded="the deadline of a timer",
                    asked="no timer there",
                    location=self._first_location(),
                )
            timer.deadline_ms = deadline

    def _deliver_what_is_there(self) -> bool:
        journal = self.journal
        there = sorted(seq for seq in self._outstanding if seq in journal.events)
        if not there:
            return False
        point = self._point or IdlePoint(frozenset(self._outstanding))
        if all(seq in journal.events for seq in point.waiting):
            self._point = None
            for seq in there:
                if seq in self._outstanding:
                    self._deliver(seq)
            return True
        marker_seq = journal.take_seq()
        delivered = list(point.delivered)
        for seq in there:
            if seq in self._outstanding:
                delivered.append(seq)
                self._deliver(seq)
        if journal.next_seq == marker_seq + 1 and not self._is_done():
            journal.next_seq = marker_seq
            self._point = IdlePoint(point.waiting, tuple(delivered))
        else:
            journal.recorded.append(delivered_marker(marker_seq, delivered))
            self._point = None
        return True

    def _steps_to_run(self) -> tuple[LocalStep, ...]:
        journal = self.journal
        waiting = [op for op in self._outstanding.values() if isinstance(op, LocalStep)]
        steps = [op for op in waiting if op.seq not in journal.events]
        for step in steps:
            if step.seq < journal.told_seq:
                journal.mismatch(
                    step.seq, recorded="nothing", asked=step.describe(), location=step.location
                )
        return tuple(steps)

    # Decisions

    def _suspend(self) -> WorkflowDecision:
        self.journal.unconsumed(self._outstanding.values(), is_done=False)
        if not self._outstanding:
            self.journal.fail(
                WorkflowStuckError(
                    "the workflow waits for something that cannot happen: no step, timer, signal "
                    "or child is outstanding. It awaits an asyncio object that no other part of "
                    "the body will ever set."
                )
            )
        self._record_deadlines()
        return self._decision(DecisionStatus.CONTINUE)

    def _record_deadlines(self) -> None:
        """Fix the deadlines of timers that another turn could come before (it resets them)."""
        if DURABLE_TIMERS in (self._task.capabilities or ()):
            return
        others = [seq for seq in self._abandoned if seq not in self.journal.events]
        if len(self._outstanding) + len(others) < 2:
            return
        new = [
            op
            for op in self._outstanding.values()
            if isinstance(op, Timer) and op.deadline_ms is None
        ]
        if not new:
            return
        for timer in new:
            timer.deadline_ms = self.now_ms + timer.ms
        deadlines = {timer.seq: self.now_ms + timer.ms for timer in new}
        self.journal.recorded.append(deadlines_marker(self.journal.take_seq(), deadlines))

    def _finish(self) -> WorkflowDecision:
        self.journal.unconsumed((), is_done=True)
        assert self._main is not None
        if self._main.cancelled():
            return self._failed(asyncio.CancelledError("the workflow body cancelled itself"))
        error = self._main.exception()
        if error is not None:
            return self._failed(error)
        self.journal.refuse_never_awaited()
        output = encode_payload(
            self._main.result(), what=f"the output of workflow {self.definition.name!r}"
        )
        return self._decision(DecisionStatus.COMPLETED, output=output)

    def _failed(self, error: BaseException) -> WorkflowDecision:
        return self._decision(DecisionStatus.FAILED, error=failure_of(error, retryable=False))

    def _decision(
        self, status: DecisionStatus, *, output: Any = UNSET, error: Failure | None = None
    ) -> WorkflowDecision:
        commands: list[AnyCommand] = list(self.journal.recorded)
        if status is DecisionStatus.CONTINUE:
            for operation in self._outstanding.values():
                command = operation.command(self.now_ms)
                if command is not None:
                    commands.append(command)
        # What is recorded must be in history before what was asked for on account of it.
        commands.sort(key=_seq_of)
        # What was recorded here is history for the turns to come.
        self.journal.extend(
            HistoryEvent(
                seq=c.seq, kind=HistoryKind.STEP, name=c.name, output=c.output, error=c.error
            )
            for c in self.journal.recorded
        )
        return WorkflowDecision(
            task_id=self._task.task_id,
            run_id=self._task.run_id,
            status=status,
            commands=commands,
            output=output,
            error=error,
        )

    # What the context uses

    @property
    def run_id(self) -> str:
        return self._task.run_id

    @property
    def honours_retry(self) -> bool:
        return CALL_RETRY in (self._task.capabilities or ())

    async def wait(self, operation: Operation) -> HistoryEvent:
        """Wait until history resolves `operation`; the event may hold a failure."""
        event = self.settled(operation.seq, operation.kind, operation.name)
        if event is not None:
            return event
        return await self.wait_unsettled(operation)

    async def wait_unsettled(self, operation: Operation) -> HistoryEvent:
        """`wait` for an operation that `settled` has just said no to."""
        operation.future = self.loop.create_future()
        self._outstanding[operation.seq] = operation
        try:
            return await operation.future
        except BaseException:
            self._abandon(operation)
            raise

    def settled(self, seq: int, kind: HistoryKind, name: str | None) -> HistoryEvent | None:
        """The event of a new operation, if it would be the next thing to be delivered anyway."""
        journal = self.journal
        event = journal.expect(seq, kind, name)
        if (
            event is None
            or self._outstanding
            or self._point is not None
            or not self.loop.is_idle
            or journal.marker() is not None
        ):
            return None
        # The future that is saved would have had a number, and numbers decide the order of sets.
        self.loop.next_number()
        return event

    def record(self, name: str, output: Any) -> HistoryEvent:
        """A value that is decided now, once: from history, or `output()` recorded."""
        seq = self.journal.take_seq()
        event = self.journal.expect(seq, HistoryKind.STEP, name, must_exist=True)
        if event is None:
            record = RecordStep(seq=seq, name=name, output=output())
            event = HistoryEvent(seq=seq, kind=HistoryKind.STEP, name=name, output=record.output)
            self.journal.recorded.append(record)
            self.journal.extend([event])
        return event

    def lost_wait(self, signal: str) -> Requested | None:
        """An abandoned wait for this signal: the operator still delivers the next one there."""
        waits = self._lost_waits.get(signal)
        if not waits:
            return None
        operation = waits.pop(0)
        self._abandoned.pop(operation.seq, None)
        return operation

    def _abandon(self, operation: Operation) -> None:
        if self._outstanding.pop(operation.seq, None) is None or self.journal.is_sealed:
            return
        self._abandoned[operation.seq] = operation
        if operation.kind is HistoryKind.SIGNAL and isinstance(operation, Requested):
            self._lost_waits.setdefault(operation.name or "", []).append(operation)

    def _first_location(self) -> Any:
        return next((op.location for op in self._outstanding.values() if op.location), None)

    # TimerHost

    def start_timer(self, timer: DurableTimer, *, delay: float) -> None:
        if self.journal.is_sealed:
            return
        ms = whole_milliseconds(delay)
        timer.seq = self.journal.take_seq()
        self.journal.expect(timer.seq, HistoryKind.TIMER, None)
        self._outstanding[timer.seq] = Timer(
            timer.seq, HistoryKind.TIMER, None, caller_location(), ms=ms, handle=timer
        )

    def timer_cancelled(self, timer: DurableTimer) -> None:
        operation = self._outstanding.get(timer.seq)
        if operation is not None:
            self._abandon(operation)


def _seq_of(command: AnyCommand) -> int:
    return command.seq
