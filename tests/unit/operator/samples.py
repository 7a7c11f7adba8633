"""Runs and checkpoints to start from, and how a test applies one input to them."""

from typing import Any

from msgspec import Raw
from msgspec.structs import replace

from durable_worker.operator.transitions.apply import apply
from durable_worker.operator.transitions.effects import (
    Emit,
    Limits,
    Transition,
)
from durable_worker.protocol.commands import (
    AnyCommand,
    DecisionStatus,
    WorkflowDecision,
)
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.results import ResultStatus, StepResult
from durable_worker.protocol.runs import RunStatus
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.inputs import (
    DecisionReceived,
    ResultReceived,
    RunInput,
)
from durable_worker.stores.records import (
    Checkpoint,
    CheckpointStatus,
    Run,
    RunState,
)

NOW = 1_700_000_000_000
USUAL = Limits()
NO = Failure(message="no")


def a_run(**changes: Any) -> Run:
    """A run whose first turn is out."""
    fields: dict[str, Any] = {
        "id": "r",
        "workflow": "w",
        "version": "1",
        "namespace": "default",
        "status": RunStatus.RUNNING,
        "created_at": NOW - 10,
        "updated_at": NOW - 10,
        "turn_no": 1,
        "task_id": "r#1",
        **changes,
    }
    return Run(**fields)


def suspended(**changes: Any) -> Run:
    return a_run(**{"status": RunStatus.SUSPENDED, "task_id": None, **changes})


def pending(seq: int, kind: HistoryKind = HistoryKind.CALL, **changes: Any) -> Checkpoint:
    fields: dict[str, Any] = {
        "run_id": "r",
        "seq": seq,
        "kind": kind,
        "name": "step",
        "status": CheckpointStatus.PENDING,
        "enqueued_at": NOW - 5,
        **changes,
    }
    return Checkpoint(**fields)


def ended(checkpoint: Checkpoint, **changes: Any) -> Checkpoint:
    """As the first of its run, unless something else is said."""
    order = None if checkpoint.kind is HistoryKind.STEP else 1
    fields = {"status": CheckpointStatus.COMPLETED, "finished_at": NOW, "order": order, **changes}
    return replace(checkpoint, **fields)


def cancelled(checkpoint: Checkpoint) -> Checkpoint:
    return ended(checkpoint, status=CheckpointStatus.CANCELLED, order=None)


def moved(run: Run, *checkpoints: Checkpoint, by: RunInput, limits: Limits = USUAL) -> Transition:
    """The transition without the events it tells."""
    found = apply(RunState(run, checkpoints), by, now=NOW, limits=limits)
    effects = tuple(each for each in found.effects if not isinstance(each, Emit))
    return Transition(found.run, found.checkpoints, effects, found.withdrawn)


def decision(
    *commands: AnyCommand,
    status: DecisionStatus = DecisionStatus.CONTINUE,
    task_id: str = "r#1",
    output: bytes | None = None,
    error: Failure | None = None,
    ordered: int | None = None,
) -> DecisionReceived:
    fields: dict[str, Any] = {} if output is None else {"output": Raw(output)}
    made = WorkflowDecision(
        task_id=task_id,
        run_id="r",
        status=status,
        commands=list(commands),
        error=error,
        ordered=ordered,
        **fields,
    )
    return DecisionReceived(run_id="r", decision=made)


def result(
    seq: int = 0, *, error: Failure | None = None, attempt: int | None = 1, **fields: Any
) -> ResultReceived:
    made = StepResult(
        run_id="r",
        seq=seq,
        step_id=f"r:{seq}",
        status=ResultStatus.COMPLETED if error is None else ResultStatus.FAILED,
        error=error,
        **fields,
    )
    return ResultReceived(run_id="r", result=made, attempt=attempt)


def next_turn(run: Run, **changes: Any) -> Run:
    number = run.turn_no + 1
    fields: dict[str, Any] = {
        "status": RunStatus.RUNNING,
        "turn_no": number,
        "task_id": f"r#{number}",
        "updated_at": NOW,
        "recoveries": 0,
        "is_dirty": False,
        **changes,
    }
    return replace(run, **fields)
