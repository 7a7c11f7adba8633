"""What happens to turns and steps that were lost on the way."""

from msgspec.structs import replace

from durable_worker.operator.transitions.draft import Draft
from durable_worker.operator.transitions.effects import Bury, SendStep
from durable_worker.operator.transitions.ending import end_run
from durable_worker.operator.transitions.resolutions import on_step_poisoned
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.runs import RunStatus
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.inputs import StepLost, StepPoisoned, TurnLost
from durable_worker.stores.letters import LOST

_WHERE = (
    "`durable-worker dead list` has its message; once the cause is mended, `dead redrive` has it "
    "sent again"
)


def on_turn_lost(draft: Draft, lost: TurnLost) -> None:
    if draft.run.task_id != lost.task_id:
        return
    recoveries = draft.run.recoveries + (1 if lost.is_counted else 0)
    if recoveries <= draft.limits.recoveries:
        draft.start_turn(recoveries=recoveries)
        return
    reason = (
        f"a turn of this run was lost {recoveries} times in a row: its worker or operator dies "
        f"whenever it is worked on"
    )
    draft.add(Bury(draft.run.id, lost.task_id, None, 1, draft.run.status, reason))
    reason = f"{reason}. {_WHERE}"
    end_run(draft, RunStatus.DEAD, error=Failure(message=reason, code=LOST, retryable=False))


def on_step_lost(draft: Draft, lost: StepLost) -> None:
    call = draft.checkpoint(lost.seq)
    if call is None or not call.is_pending or call.kind is not HistoryKind.CALL:
        return
    if not call.is_out or (call.attempt, call.recoveries) != (
        lost.attempt,
        lost.recoveries,
    ):
        return
    recoveries = call.recoveries + (1 if lost.is_counted else 0)
    if recoveries > draft.limits.recoveries:
        reason = f"the process died {recoveries} times in a row while this step was running"
        told = f"{reason}. {_WHERE}"
        on_step_poisoned(draft, StepPoisoned(run_id=call.run_id, seq=call.seq, reason=told))
        draft.add(Bury(call.run_id, None, call.seq, call.attempt, draft.run.status, reason))
        return
    draft.put(replace(call, recoveries=recoveries))
    draft.add(SendStep(call.run_id, call.seq, call.attempt))


def on_redispatch(draft: Draft) -> None:
    """Send a turn that is out under a new id, and every attempt that is out once more."""
    if draft.run.task_id is not None:
        draft.start_turn(recoveries=draft.run.recoveries)
    for call in draft.pending():
        if call.kind is HistoryKind.CALL and call.is_out:
            draft.add(SendStep(call.run_id, call.seq, call.attempt))
