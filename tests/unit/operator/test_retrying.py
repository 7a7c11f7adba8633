"""What is applied to set a run going again, and what comes of it."""

import pytest
from msgspec import Raw

from durable_worker.operator.transitions.apply import apply
from durable_worker.operator.transitions.effects import SendStep, SendTurn
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.runs import RunStatus
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.inputs import SignalSent, StepRedriven, TurnRedriven, Unparked
from durable_worker.stores.letters import Refusal
from durable_worker.stores.records import CheckpointStatus, Parent, Run, RunState
from durable_worker.stores.retrying import continuation_of, retry_of
from tests.unit.operator.samples import NO, NOW, a_run, ended, pending, suspended

FAILED = CheckpointStatus.FAILED


def failed_run(*, status: RunStatus = RunStatus.FAILED, parent: Parent | None = None) -> Run:
    return a_run(status=status, task_id=None, error=NO, parent=parent, updated_at=NOW)


def test_the_step_that_failed_last_is_tried_again() -> None:
    earlier = ended(pending(0), status=FAILED, error=NO, order=1, finished_at=NOW - 4)
    later = ended(pending(1, attempt=3), status=FAILED, error=NO, order=2, enqueued_at=NOW - 4)
    state = RunState(failed_run(), [earlier, later])
    asked = retry_of(state)
    assert asked == StepRedriven(run_id="r", seq=1, attempt=3)
    found = apply(state, asked, now=NOW + 5)
    assert found.run is not None
    assert (found.run.status, found.run.error) == (RunStatus.RUNNING, None)
    assert found.effects == (SendStep("r", 1, 4), SendTurn("r", "r#2"))


@pytest.mark.parametrize("status", [RunStatus.FAILED, RunStatus.DEAD])
def test_a_body_that_went_on_after_the_failure_gets_another_turn(status: RunStatus) -> None:
    caught = ended(pending(0), status=FAILED, error=NO, finished_at=NOW - 4)
    undone = ended(pending(1, enqueued_at=NOW - 3), order=2)
    state = RunState(failed_run(status=status), [caught, undone])
    asked = retry_of(state)
    assert asked == TurnRedriven(run_id="r", task_id="r#1")
    found = apply(state, asked, now=NOW + 5)
    assert found.run is not None
    assert (found.run.status, found.effects) == (RunStatus.RUNNING, (SendTurn("r", "r#2"),))


def test_a_run_without_steps_gets_another_turn() -> None:
    assert retry_of(RunState(failed_run())) == TurnRedriven(run_id="r", task_id="r#1")


def test_what_has_not_failed_is_refused() -> None:
    told = Parent("p", 1)
    refused = {
        "has not failed": suspended(),
        "is completed": a_run(status=RunStatus.COMPLETED, task_id=None),
        "is cancelled": a_run(status=RunStatus.CANCELLED, task_id=None),
        "its parent 'p' has been told": failed_run(parent=told),
    }
    for words, run in refused.items():
        found = retry_of(RunState(run))
        assert isinstance(found, Refusal)
        assert words in found.reason


def test_a_parked_run_is_set_going_by_both() -> None:
    state = RunState(suspended(status=RunStatus.BLOCKED, error=Failure(message="no")))
    assert retry_of(state) == Unparked(run_id="r")
    assert continuation_of(state, signal_id="s") == [Unparked(run_id="r")]


def test_every_breakpoint_at_which_a_run_rests_is_passed() -> None:
    signal = HistoryKind.SIGNAL
    state = RunState(
        suspended(),
        [
            ended(pending(0, signal, name="bp:r:0"), output=Raw(b"null")),
            pending(1, signal, name="bp:r:1"),
            pending(2, signal, name="bp:other:2"),
            pending(3, signal, name="bp:r:3"),
        ],
    )
    assert continuation_of(state, signal_id="s") == [
        SignalSent(signal_id="s/bp:r:1", name="bp:r:1"),
        SignalSent(signal_id="s/bp:r:3", name="bp:r:3"),
    ]
    assert isinstance(continuation_of(RunState(suspended()), signal_id="s"), Refusal)
