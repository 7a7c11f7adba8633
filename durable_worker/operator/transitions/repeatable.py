"""Which decisions need not be recorded before what they ask for is done."""

from durable_worker.operator.transitions.effects import Emit, SendStep, Transition
from durable_worker.protocol.commands import DecisionStatus, RecordStep, WorkflowDecision
from durable_worker.protocol.runs import RunStatus
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.records import RunState


def may_be_repeatable(state: RunState, decision: WorkflowDecision) -> bool:
    """Whether it is worth a look at what the decision does.

    A turn that was lost before is none: whether it or a step takes its process down is to be seen.
    """
    run = state.run
    if decision.status is not DecisionStatus.CONTINUE or run.task_id != decision.task_id:
        return False
    for command in decision.commands:
        if isinstance(command, RecordStep):
            return False
    return run.status is RunStatus.RUNNING and not run.recoveries


def is_repeatable(moved: Transition) -> bool:
    """Whether a decision does nothing but call steps, if anything: another turn, made from what is
    recorded already, asks for the same again."""
    if moved.run is None or moved.run.status is not RunStatus.SUSPENDED or moved.withdrawn:
        return False
    for each in moved.checkpoints:
        if each.kind is not HistoryKind.CALL or not each.is_pending or each.fires_at is not None:
            return False
    return all(isinstance(effect, (SendStep, Emit)) for effect in moved.effects)
