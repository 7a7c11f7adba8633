"""The one way in which a run advances."""

from typing import assert_never

from msgspec.structs import replace

from durable_worker.operator.transitions.decisions import on_decision
from durable_worker.operator.transitions.draft import Draft
from durable_worker.operator.transitions.effects import NOTHING, Limits, Transition
from durable_worker.operator.transitions.ending import on_cancel, on_turn_poisoned
from durable_worker.operator.transitions.parking import on_unparked
from durable_worker.operator.transitions.recovery import (
    on_redispatch,
    on_step_lost,
    on_turn_lost,
)
from durable_worker.operator.transitions.redriving import on_step_redriven, on_turn_redriven
from durable_worker.operator.transitions.resolutions import (
    on_child_ended,
    on_result,
    on_signal,
    on_step_poisoned,
    on_timer,
)
from durable_worker.operator.transitions.starting import (
    create,
    on_workflow_available,
    start_again,
)
from durable_worker.stores.inputs import (
    CancelRequested,
    ChildEnded,
    DecisionReceived,
    Redispatched,
    ResultReceived,
    RunInput,
    SignalMatched,
    StartRun,
    StepLost,
    StepPoisoned,
    StepRedriven,
    TimerDue,
    TurnLost,
    TurnPoisoned,
    TurnRedriven,
    Unparked,
    WorkflowAvailable,
)
from durable_worker.stores.records import Run, RunState

DEFAULT_LIMITS = Limits()


def apply(
    state: RunState | None, happened: RunInput, *, now: int, limits: Limits = DEFAULT_LIMITS
) -> Transition:
    """What `happened` changes in a run, at `now` (epoch ms). Applying it twice equals once."""
    if isinstance(happened, StartRun):
        if state is None:
            return create(happened, now=now, limits=limits)
        return start_again(state.run, happened)
    if state is None:
        return NOTHING
    draft = Draft(state, now=now, limits=limits)
    _advance(draft, happened)
    return draft.finish()


_Trouble = (
    StepPoisoned
    | TurnPoisoned
    | TurnLost
    | StepLost
    | Redispatched
    | StepRedriven
    | TurnRedriven
    | Unparked
)

_Progress = (
    WorkflowAvailable
    | ResultReceived
    | DecisionReceived
    | TimerDue
    | SignalMatched
    | CancelRequested
    | ChildEnded
)


def _advance(draft: Draft, happened: _Progress | _Trouble) -> None:
    match happened:
        case ResultReceived(result=result, attempt=attempt):
            on_result(draft, result, attempt=attempt)
        case DecisionReceived(decision=decision, version=version):
            on_decision(draft, decision, version=version)
        case TimerDue(seq=seq):
            on_timer(draft, seq)
        case SignalMatched():
            on_signal(draft, happened)
        case ChildEnded():
            on_child_ended(draft, happened)
        case WorkflowAvailable(version=version):
            on_workflow_available(draft, version=version)
        case CancelRequested():
            on_cancel(draft, happened)
        case _:
            _mend(draft, happened)


def _mend(draft: Draft, happened: _Trouble) -> None:
    match happened:
        case StepPoisoned():
            on_step_poisoned(draft, happened)
        case TurnPoisoned():
            on_turn_poisoned(draft, happened)
        case TurnLost():
            on_turn_lost(draft, happened)
        case StepLost():
            on_step_lost(draft, happened)
        case Redispatched():
            on_redispatch(draft)
        case StepRedriven():
            on_step_redriven(draft, happened)
        case TurnRedriven():
            on_turn_redriven(draft, happened)
        case Unparked():
            on_unparked(draft, happened)
        case _:
            assert_never(happened)


def carried_by(run: Run, task_id: str) -> Run:
    """The run once turn `task_id` leaves with everything that was resolved so far.

    A turn that has not left yet needs no successor for what was resolved after it was decided.
    """
    return replace(run, is_dirty=False) if run.is_dirty and run.task_id == task_id else run
