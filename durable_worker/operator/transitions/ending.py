"""How a run ends, and whom that concerns."""

from msgspec import UNSET
from msgspec.structs import replace

from durable_worker.operator.transitions.draft import Draft
from durable_worker.operator.transitions.effects import BroadcastCancel, Deliver
from durable_worker.operator.transitions.poison import poison_told
from durable_worker.protocol.base import Payload
from durable_worker.protocol.control import EngineEventType
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.names import child_run_id
from durable_worker.protocol.runs import RunStatus
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.inputs import CancelRequested, ChildEnded, TurnPoisoned
from durable_worker.stores.records import CheckpointStatus, Parent, Run

CANCELLED = Failure(message="the run was cancelled", code="cancelled")


def end_run(
    draft: Draft,
    status: RunStatus,
    *,
    output: Payload = UNSET,
    error: Failure | None = None,
    is_final: bool = False,
) -> None:
    """Enter a terminal status: nothing stays pending, the parent is told.

    A run that was cancelled takes its children along, `is_final` without telling their bodies.
    """
    takes_children = status is RunStatus.CANCELLED or draft.run.status is RunStatus.CANCELLING
    for each in draft.pending():
        draft.put(replace(each, status=CheckpointStatus.CANCELLED, finished_at=draft.now))
        if takes_children and each.kind is HistoryKind.CHILD:
            child = child_run_id(each.run_id, each.seq)
            draft.add(Deliver(CancelRequested(run_id=child, is_final=is_final)))
    draft.update(status=status, output=output, error=error, task_id=None, is_dirty=False)
    if status is RunStatus.CANCELLED:
        draft.add(BroadcastCancel(draft.run.id))
    if draft.run.parent is not None:
        draft.add(Deliver(report_to(draft.run.parent, draft.run)))
    if status is RunStatus.COMPLETED:
        draft.emit(EngineEventType.RUN_COMPLETED, output=output)
    else:
        draft.emit(EngineEventType.RUN_FAILED, error=error)


def report_to(parent: Parent, child: Run) -> ChildEnded:
    return ChildEnded(
        run_id=parent.run_id,
        seq=parent.seq,
        status=child.status,
        output=child.output,
        error=child.error,
    )


def on_cancel(draft: Draft, asked: CancelRequested) -> None:
    """Tell the body, by a turn with `cancel`; a run whose body never began ends at once."""
    if draft.run.status.is_terminal:
        return
    if asked.is_final or draft.run.version is None:
        error = CANCELLED if asked.replaced_by is None else _replaced(asked.replaced_by)
        end_run(draft, RunStatus.CANCELLED, error=error, is_final=asked.is_final)
    elif draft.run.status is not RunStatus.CANCELLING:
        draft.update(status=RunStatus.CANCELLING)
        # The answer to a turn that is out knows nothing of the cancellation: it is not waited for.
        draft.start_turn(recoveries=draft.run.recoveries)
        calls = [each.seq for each in draft.pending() if each.kind is HistoryKind.CALL]
        if calls:
            draft.add(BroadcastCancel(draft.run.id, tuple(calls)))


def _replaced(run_id: str) -> Failure:
    return Failure(message=f"run {run_id!r} was started in its place", code="replaced")


def on_turn_poisoned(draft: Draft, poisoned: TurnPoisoned) -> None:
    if draft.run.task_id != poisoned.task_id:
        return
    if poisoned.is_suspicion and draft.run.recoveries < draft.limits.second_chances:
        draft.start_turn(recoveries=draft.run.recoveries + 1)
        return
    told = poison_told(poisoned, what="a turn of this run", recoveries=draft.run.recoveries)
    error = Failure(message=told, code=poisoned.code, retryable=False)
    end_run(draft, RunStatus.DEAD, error=error)
