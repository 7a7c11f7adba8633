"""Which decisions may be carried out before they are recorded."""

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from durable_worker.operator.transitions.apply import apply
from durable_worker.operator.transitions.repeatable import is_repeatable, may_be_repeatable
from durable_worker.protocol.commands import (
    AnyCommand,
    DecisionStatus,
    RecordStep,
    ScheduleStep,
    StartChild,
    StartTimer,
    WaitSignal,
    WorkflowDecision,
)
from durable_worker.protocol.runs import RunStatus
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.inputs import DecisionReceived
from durable_worker.stores.records import PARKED_SEQ, Checkpoint, Run, RunState
from tests.unit.operator.samples import NO, NOW, a_run, cancelled, decision, ended, pending

CALL = ScheduleStep(seq=1, name="step", group="default")
REPEATED = ScheduleStep(seq=0, name="step", group="default")
TIMER = StartTimer(seq=1, ms=5)
WAIT = WaitSignal(seq=1, signal="s")
CHILD = StartChild(seq=1, workflow="w")
RECORD = RecordStep(seq=1, name="now#1")


def repeatable(run: Run, checkpoints: Sequence[Checkpoint], made: DecisionReceived) -> bool:
    state = RunState(run, checkpoints)
    if not may_be_repeatable(state, made.decision):
        return False
    return is_repeatable(apply(state, made, now=NOW))


@pytest.mark.parametrize(
    ("checkpoints", "commands"),
    [
        ((), [CALL]),
        ((), [CALL, replace(CALL, seq=2)]),
        ([ended(pending(0))], [CALL]),
        ([pending(0)], [REPEATED, CALL]),
        ([pending(0)], [REPEATED]),
        ([pending(0)], []),
        ([pending(0, HistoryKind.SIGNAL)], [WaitSignal(seq=0, signal="s"), CALL]),
    ],
)
def test_calls_of_steps_are_asked_for_again(
    checkpoints: Sequence[Checkpoint], commands: Sequence[AnyCommand]
) -> None:
    assert repeatable(a_run(), checkpoints, decision(*commands))


@pytest.mark.parametrize("other", [TIMER, WAIT, CHILD, RECORD])
def test_what_only_this_turn_knows_or_reaches_beyond_the_run_has_to_be_recorded(
    other: AnyCommand,
) -> None:
    call = replace(CALL, seq=2)
    assert not repeatable(a_run(), (), decision(other, call))
    assert not repeatable(a_run(), (), decision(call, other))


@pytest.mark.parametrize(
    "changed",
    [
        {"status": RunStatus.CANCELLING},
        {"is_dirty": True},
        {"recoveries": 1},
        {"ordered": 0},
        {"task_id": "r#2"},
        {"status": RunStatus.CANCELLED, "task_id": None},
    ],
)
def test_a_run_that_is_not_just_going_on_is_recorded_first(changed: dict[str, object]) -> None:
    assert not repeatable(a_run(**changed), (), decision(CALL))


@pytest.mark.parametrize(
    "checkpoint",
    [
        pending(0, HistoryKind.TIMER, name="sleep:0", fires_at=NOW + 9),
        cancelled(pending(PARKED_SEQ, HistoryKind.TIMER, name="parked")),
    ],
)
def test_a_timer_that_is_given_up_is_recorded_first(checkpoint: Checkpoint) -> None:
    assert not repeatable(a_run(), [checkpoint], decision(CALL))


@pytest.mark.parametrize("status", [each for each in DecisionStatus if each != "continue"])
def test_the_end_of_a_run_is_recorded_first(status: DecisionStatus) -> None:
    assert not repeatable(a_run(), (), decision(status=status, error=NO))


def test_a_turn_that_fails_its_run_or_parks_it_is_recorded_first() -> None:
    assert not repeatable(a_run(), (), decision())  # nothing is left that could happen
    parked = WorkflowDecision(
        task_id="r#1",
        run_id="r",
        status=DecisionStatus.CONTINUE,
        commands=[CALL],
        error=NO,
        park=True,
    )
    assert not repeatable(a_run(), (), DecisionReceived(run_id="r", decision=parked))
