"""How a run goes on that a dead letter had stopped."""

from msgspec import UNSET
from msgspec.structs import replace

from durable_worker.operator.transitions.decisions import child_start
from durable_worker.operator.transitions.draft import Draft, with_attempt_out
from durable_worker.operator.transitions.effects import AwaitSignal, Deliver, SendStep
from durable_worker.protocol.failure import GIVEN_UP
from durable_worker.protocol.names import CANCELLED_MARKER
from durable_worker.protocol.runs import RunStatus
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.inputs import StepRedriven, TurnRedriven
from durable_worker.stores.letters import asked_since, what_hinders
from durable_worker.stores.records import Checkpoint, CheckpointStatus, turn_id


def on_step_redriven(draft: Draft, again: StepRedriven) -> None:
    """The call is pending as if it had not failed; what the body recorded because of that is gone,
    and what it gave up is pending, too.

    The run gets a turn in any case: what a worker or a turn that is out knows is no longer so.
    """
    call = draft.checkpoint(again.seq)
    if call is None or call.status is not CheckpointStatus.FAILED or call.attempt != again.attempt:
        return
    if what_hinders(draft.state, call, last_seq=again.last_seq) is not None:
        return
    for each in asked_since(draft.state, call, last_seq=again.last_seq):
        draft.withdraw(each.seq)
    _call_again(draft, call, keeps_attempt=again.keeps_attempt)
    for each in _given_up_after(draft, call):
        _call_again(draft, each)
    if draft.run.status.is_terminal:
        _reopen(draft)
    seen = draft.run.ordered
    if seen is not None and call.order is not None:
        # What decisions have asked for on account of the failure, or after it, is gone.
        draft.update(ordered=min(seen, call.order - 1))
    draft.start_turn()


def _call_again(draft: Draft, call: Checkpoint, *, keeps_attempt: bool = False) -> None:
    pending = replace(
        call,
        status=CheckpointStatus.PENDING,
        error=None,
        order=None,
        attempt=call.attempt if keeps_attempt else call.attempt + 1,
        started_at=None,
        finished_at=None,
        recoveries=0,
    )
    draft.put(with_attempt_out(pending, now=draft.now))
    if not keeps_attempt:
        draft.add(SendStep(call.run_id, call.seq, pending.attempt))


def _given_up_after(draft: Draft, failed: Checkpoint) -> list[Checkpoint]:
    """Nothing tells on account of what; a body that was not moved by the failure does so again."""
    if failed.order is None:
        return []
    return [
        each
        for each in draft.state.checkpoints.values()
        if each.order is not None and each.order > failed.order and each.error == GIVEN_UP
    ]


def on_turn_redriven(draft: Draft, again: TurnRedriven) -> None:
    run = draft.run
    if run.status not in (RunStatus.DEAD, RunStatus.FAILED) or run.parent is not None:
        return
    if again.task_id != turn_id(run.id, run.turn_no):
        return
    _reopen(draft, is_cancelling=again.is_cancelling)
    if again.keeps_turn:
        # Whether history had grown while the turn was out is forgotten: one turn more does no harm.
        draft.update(
            status=draft.live_status(RunStatus.RUNNING), task_id=again.task_id, is_dirty=True
        )
    else:
        draft.start_turn()


def _reopen(draft: Draft, *, is_cancelling: bool = False) -> None:
    """Take back the end of the run: what was pending then is pending again."""
    ended_at = draft.run.updated_at
    was_cancelled = is_cancelling or draft.recorded_at(CANCELLED_MARKER) is not None
    status = RunStatus.CANCELLING if was_cancelled else RunStatus.RUNNING
    draft.update(status=status, output=UNSET, error=None, recoveries=0)
    for each in draft.cancelled():
        if each.finished_at == ended_at:
            again = replace(each, status=CheckpointStatus.PENDING, finished_at=None)
            if again.kind is HistoryKind.CALL and again.is_out:
                again = with_attempt_out(again, now=draft.now)
            draft.put(again)
            _ask_again(draft, again)


def _ask_again(draft: Draft, operation: Checkpoint) -> None:
    """Nobody may know any more that this is waited for, or its answer was dropped."""
    match operation.kind:
        case HistoryKind.CALL if operation.is_out:
            draft.add(SendStep(operation.run_id, operation.seq, operation.attempt))
        case HistoryKind.SIGNAL:
            namespace = draft.run.namespace
            draft.add(AwaitSignal(operation.run_id, operation.seq, namespace, operation.name))
        case HistoryKind.CHILD:
            draft.add(Deliver(child_start(draft.run, operation)))
        case _:
            pass  # its deadline is in the checkpoint
