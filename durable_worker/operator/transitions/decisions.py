"""What the answer to a turn does (protocol/README.md: decisions and commands)."""

from collections.abc import Iterable
from typing import assert_never

from msgspec.structs import replace

from durable_worker.operator.transitions.attributes import note_attributes
from durable_worker.operator.transitions.continuing import continue_as_new
from durable_worker.operator.transitions.draft import Draft, instant, with_attempt_out
from durable_worker.operator.transitions.effects import AwaitSignal, Deliver, SendStep
from durable_worker.operator.transitions.ending import CANCELLED, end_run
from durable_worker.operator.transitions.giving_up import give_up
from durable_worker.operator.transitions.parking import forget_parking, park
from durable_worker.protocol.commands import (
    AnyAsked,
    AnyCommand,
    CancelStep,
    DecisionStatus,
    RecordStep,
    ScheduleStep,
    StartChild,
    StartTimer,
    WaitSignal,
    WorkflowDecision,
)
from durable_worker.protocol.control import EngineEventType
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.names import CANCELLED_MARKER, child_run_id, is_default
from durable_worker.protocol.runs import RunStatus
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.inputs import StartRun
from durable_worker.stores.records import UNORDERED, Checkpoint, CheckpointStatus, Parent, Run

_STUCK = Failure(
    message="the turn ended without a result, and the run waits for nothing that could happen",
    code="stuck",
    retryable=False,
)
_UNEXPLAINED = Failure(message="the workflow failed without saying why")
_OLD_WORKER = Failure(
    message="a worker of an older release answered a turn of this run, which needs its results in "
    "the order in which they came: update that worker",
    code="outdated-worker",
    retryable=False,
)


def on_decision(draft: Draft, decision: WorkflowDecision, *, version: str | None = None) -> None:
    """Applied only if it answers the turn that the run awaits. `version`: the newest that is
    served, for a run that goes on as new."""
    if draft.run.task_id != decision.task_id:
        return
    if _goes_by_markers(draft, decision):
        _ask_another(draft)
        return
    if _may_not_know_of_signals(draft, decision):
        draft.start_turn()
        return
    if decision.park and draft.run.status is not RunStatus.CANCELLING:
        park(draft, decision.error or _UNEXPLAINED)
        return
    forget_parking(draft)
    has_grown = draft.run.is_dirty
    draft.update(
        task_id=None,
        is_dirty=False,
        recoveries=0,
        ordered=UNORDERED if decision.ordered is None else decision.ordered,
    )
    if _ignores_cancellation(draft, decision):
        _record(draft, decision.commands)
        end_run(draft, RunStatus.CANCELLED, error=CANCELLED)
        return
    give_up(draft, decision.commands)
    match decision.status:
        case DecisionStatus.CONTINUE:
            _suspend(draft, decision.commands, has_grown=has_grown)
        case DecisionStatus.COMPLETED:
            _record(draft, decision.commands)
            end_run(draft, RunStatus.COMPLETED, output=decision.output)
        case DecisionStatus.FAILED:
            _record(draft, decision.commands)
            end_run(draft, RunStatus.FAILED, error=decision.error or _UNEXPLAINED)
        case DecisionStatus.CANCELLED:
            _record(draft, decision.commands)
            end_run(draft, RunStatus.CANCELLED, error=decision.error or CANCELLED)
        case DecisionStatus.CONTINUED if _was_told_of_cancellation(draft, decision):
            _record(draft, decision.commands)
            end_run(draft, RunStatus.CANCELLED, error=CANCELLED)
        case DecisionStatus.CONTINUED:
            continue_as_new(draft, decision, version=version)
        case _:
            assert_never(decision.status)


def _goes_by_markers(draft: Draft, decision: WorkflowDecision) -> bool:
    """Whether the worker has given results in another order than decisions before it relied on.

    One that failed may not have come to replay at all.
    """
    is_ordered = draft.run.ordered is not None and draft.run.ordered != UNORDERED
    return is_ordered and decision.ordered is None and decision.status is not DecisionStatus.FAILED


def _may_not_know_of_signals(draft: Draft, decision: WorkflowDecision) -> bool:
    """Whether a signal may have come that the body would have taken along, and nobody can tell."""
    goes_on = decision.status is DecisionStatus.CONTINUED
    return goes_on and decision.ordered is None and draft.run.is_dirty


def _ask_another(draft: Draft) -> None:
    recoveries = draft.run.recoveries + 1
    if recoveries <= draft.limits.second_chances or draft.run.status is RunStatus.CANCELLING:
        draft.start_turn(recoveries=recoveries)
    else:
        park(draft, _OLD_WORKER)


def _ignores_cancellation(draft: Draft, decision: WorkflowDecision) -> bool:
    """Whether the worker goes on with a cancelled run as if it did not know of `cancel`."""
    if draft.run.status is not RunStatus.CANCELLING:
        return False
    if decision.status is not DecisionStatus.CONTINUE:
        return False
    if any(isinstance(each, StartTimer) and each.ms == 0 for each in decision.commands):
        return False  # the body has ended; its children have yet to be started
    return not _was_told_of_cancellation(draft, decision)


def _was_told_of_cancellation(draft: Draft, decision: WorkflowDecision) -> bool:
    recorded = (each.name for each in decision.commands if isinstance(each, RecordStep))
    return CANCELLED_MARKER in recorded or draft.recorded_at(CANCELLED_MARKER) is not None


def _suspend(draft: Draft, commands: Iterable[AnyCommand], *, has_grown: bool) -> None:
    has_recorded = False
    repeated: set[int] = set()
    for command in _without_repeated(draft, commands):
        match command:
            case StartTimer():
                repeated.add(command.seq)
                _start_timer(draft, command)
            case _ if draft.checkpoint(command.seq) is not None:
                continue
            case RecordStep():
                has_recorded = True
                draft.put(_recorded(draft, command))
                note_attributes(draft, command)
            case ScheduleStep():
                _schedule(draft, command)
            case WaitSignal():
                _wait(draft, command)
            case StartChild():
                _start_child(draft, command)
            case _:
                assert_never(command)
    _forget_timers(draft, except_for=repeated)
    if has_grown:
        draft.grow()
    elif draft.has_pending():
        draft.update(status=draft.live_status(RunStatus.SUSPENDED))
        draft.emit(EngineEventType.RUN_SUSPENDED)
    elif has_recorded:
        draft.grow()
    else:
        end_run(draft, RunStatus.FAILED, error=_STUCK)


def _without_repeated(draft: Draft, commands: Iterable[AnyCommand]) -> Iterable[AnyAsked]:
    """A body asks for all that is outstanding in each of its decisions. Timers have to be."""
    known = draft.state.checkpoints
    for each in commands:
        if isinstance(each, CancelStep):
            continue
        if isinstance(each, StartTimer) or each.seq not in known:
            yield each


def _record(draft: Draft, commands: Iterable[AnyCommand]) -> None:
    for command in commands:
        if isinstance(command, RecordStep) and draft.checkpoint(command.seq) is None:
            draft.put(_recorded(draft, command))
            note_attributes(draft, command)


def _recorded(draft: Draft, command: RecordStep) -> Checkpoint:
    finished = draft.now if command.finished_at is None else instant(command.finished_at)
    return Checkpoint(
        run_id=draft.run.id,
        seq=command.seq,
        kind=HistoryKind.STEP,
        name=command.name,
        status=CheckpointStatus.COMPLETED if command.error is None else CheckpointStatus.FAILED,
        output=command.output,
        error=command.error,
        enqueued_at=draft.now,
        started_at=None if command.started_at is None else instant(command.started_at),
        finished_at=finished,
        events=tuple(command.events or ()),
        parallel_group=command.parallel_group,
    )


def _schedule(draft: Draft, command: ScheduleStep) -> None:
    call = Checkpoint(
        run_id=draft.run.id,
        seq=command.seq,
        kind=HistoryKind.CALL,
        name=command.name,
        status=CheckpointStatus.PENDING,
        input=command.input,
        retry=command.retry,
        partition=None if is_default(command.group) else command.group,
        enqueued_at=draft.now,
        parallel_group=command.parallel_group,
    )
    draft.put(call if call.retry is None else with_attempt_out(call, now=draft.now))
    draft.add(SendStep(draft.run.id, command.seq, 1))


def _start_timer(draft: Draft, command: StartTimer) -> None:
    """A repeated one keeps its first deadline, also if it had lost its wake-up meanwhile."""
    existing = draft.checkpoint(command.seq)
    if existing is None:
        draft.put(
            Checkpoint(
                run_id=draft.run.id,
                seq=command.seq,
                kind=HistoryKind.TIMER,
                name=f"sleep:{command.seq}",
                status=CheckpointStatus.PENDING,
                fires_at=instant(draft.now + command.ms),
                enqueued_at=draft.now,
            )
        )
    elif existing.status is CheckpointStatus.CANCELLED and existing.kind is HistoryKind.TIMER:
        draft.put(replace(existing, status=CheckpointStatus.PENDING, finished_at=None))


def _forget_timers(draft: Draft, *, except_for: set[int]) -> None:
    for each in draft.pending_timers():
        if each.seq not in except_for:
            draft.put(replace(each, status=CheckpointStatus.CANCELLED, finished_at=draft.now))


def _wait(draft: Draft, command: WaitSignal) -> None:
    draft.put(
        Checkpoint(
            run_id=draft.run.id,
            seq=command.seq,
            kind=HistoryKind.SIGNAL,
            name=command.signal,
            status=CheckpointStatus.PENDING,
            enqueued_at=draft.now,
        )
    )
    draft.add(AwaitSignal(draft.run.id, command.seq, draft.run.namespace, command.signal))


def _start_child(draft: Draft, command: StartChild) -> None:
    operation = Checkpoint(
        run_id=draft.run.id,
        seq=command.seq,
        kind=HistoryKind.CHILD,
        name=command.workflow,
        status=CheckpointStatus.PENDING,
        input=command.input,
        enqueued_at=draft.now,
        parallel_group=command.parallel_group,
    )
    draft.put(operation)
    draft.add(Deliver(child_start(draft.run, operation)))


def child_start(run: Run, operation: Checkpoint) -> StartRun:
    """What a child operation asks for; a child that exists answers it with how it stands."""
    return StartRun(
        run_id=child_run_id(run.id, operation.seq),
        workflow=operation.name,
        input=operation.input,
        namespace=run.namespace,
        partition=run.partition,
        parent=Parent(run.id, operation.seq),
    )
