"""How a run comes to be, and how it gets its first turn."""

from msgspec import UNSET

from durable_worker.operator.transitions.draft import Draft
from durable_worker.operator.transitions.effects import NOTHING, Deliver, Limits, Transition
from durable_worker.operator.transitions.ending import report_to
from durable_worker.protocol.control import EngineEventType
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.runs import RunStatus
from durable_worker.stores.inputs import ChildEnded, StartRun
from durable_worker.stores.records import Run, RunState


def create(start: StartRun, *, now: int, limits: Limits) -> Transition:
    run = Run(
        id=start.run_id,
        workflow=start.workflow,
        version=None,
        namespace=start.namespace,
        partition=start.partition,
        status=RunStatus.PENDING,
        input=start.input,
        parent=start.parent,
        tags=start.tags,
        search_attributes=start.search_attributes,
        created_at=now,
        updated_at=now,
        ordered=None,
    )
    draft = Draft(RunState(run), now=now, limits=limits)
    if start.version is not None:
        on_workflow_available(draft, version=start.version)
    made = draft.finish()
    return Transition(draft.run, made.checkpoints, made.effects)


def on_workflow_available(draft: Draft, *, version: str) -> None:
    if draft.run.version is not None or draft.run.status.is_terminal:
        return
    draft.update(version=version)
    draft.start_turn()
    draft.emit(EngineEventType.RUN_STARTED)


def start_again(run: Run, start: StartRun) -> Transition:
    """The run exists: nothing changes, but a parent that asks gets its answer."""
    if start.parent is None:
        return NOTHING
    if run.parent != start.parent:
        return Transition(effects=(Deliver(_taken(run, start)),))
    if run.status.is_terminal:
        return Transition(effects=(Deliver(report_to(start.parent, run)),))
    return NOTHING


def _taken(run: Run, start: StartRun) -> ChildEnded:
    assert start.parent is not None
    return ChildEnded(
        run_id=start.parent.run_id,
        seq=start.parent.seq,
        status=RunStatus.FAILED,
        output=UNSET,
        error=Failure(
            message=f"the child's run id {run.id!r} belongs to another run (of {run.workflow!r})",
            code="run-id-taken",
            retryable=False,
        ),
    )
