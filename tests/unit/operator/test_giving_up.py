"""Calls that a body has given up."""

from msgspec import Raw

from durable_worker.operator.transitions.effects import BroadcastCancel, SendTurn
from durable_worker.protocol.commands import CancelStep, DecisionStatus, RetryOptions, WaitSignal
from durable_worker.protocol.control import GivenUp
from durable_worker.protocol.failure import GIVEN_UP, Failure
from durable_worker.protocol.runs import RunStatus
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.inputs import StepRedriven, TimerDue
from durable_worker.stores.records import Checkpoint, CheckpointStatus, RunState
from durable_worker.stores.retrying import retry_of
from tests.unit.operator.samples import NOW, a_run, decision, ended, moved, pending, result

TOLD = BroadcastCancel("r", given_up=(GivenUp(seq=0, attempt=1),))
FAILED = CheckpointStatus.FAILED


def given_up(*, order: int = 1) -> Checkpoint:
    return ended(pending(0), status=FAILED, error=GIVEN_UP, order=order)


def waiting(seq: int) -> Checkpoint:
    return pending(seq, HistoryKind.SIGNAL, name="go")


def test_history_tells_it_without_a_turn_and_its_worker_is_told() -> None:
    by = decision(CancelStep(seq=0), WaitSignal(seq=1, signal="go"), ordered=0)
    found = moved(a_run(), pending(0), waiting(1), by=by)
    assert found.run is not None
    assert (found.run.status, found.run.task_id) == (RunStatus.SUSPENDED, None)
    assert found.checkpoints == (given_up(),)
    assert found.effects == (TOLD,)


def test_it_comes_after_all_that_the_body_has_got() -> None:
    signal = ended(waiting(1), order=7)
    by = decision(CancelStep(seq=0), ordered=7)
    found = moved(a_run(), pending(0), signal, waiting(2), by=by)
    assert found.checkpoints == (given_up(order=8),)


def test_what_is_not_out_any_more_stays_as_it_is() -> None:
    for before in (ended(pending(0)), pending(0, HistoryKind.CHILD), pending(7)):
        by = decision(CancelStep(seq=0), ordered=0)
        found = moved(a_run(), before, waiting(4), by=by)
        assert (found.checkpoints, found.effects) == ((), ())


def test_it_gets_no_further_attempt_and_its_answer_changes_nothing() -> None:
    retried = pending(0, retry=RetryOptions(attempts=5), fires_at=NOW + 5, attempt=2)
    state = RunState(a_run(), [retried, waiting(1)])
    by = decision(CancelStep(seq=0), ordered=0)
    found = moved(state.run, *state.checkpoints.values(), by=by)
    assert found.effects == (BroadcastCancel("r", given_up=(GivenUp(seq=0, attempt=2),)),)
    state.absorb(found.run, found.checkpoints)
    for late in (TimerDue(run_id="r", seq=0), result(0, attempt=2), result(0, attempt=None)):
        again = moved(state.run, *state.checkpoints.values(), by=late)
        assert (again.run, again.checkpoints, again.effects) == (None, (), ())


def test_a_body_that_ends_gives_up_what_it_says() -> None:
    by = decision(CancelStep(seq=0), status=DecisionStatus.COMPLETED, output=b"1", ordered=0)
    found = moved(a_run(), pending(0), pending(1), by=by)
    assert found.run is not None
    assert (found.run.status, found.run.output) == (RunStatus.COMPLETED, Raw(b"1"))
    first, second = found.checkpoints
    assert first == given_up()
    assert second.status is CheckpointStatus.CANCELLED
    assert found.effects == (TOLD,)


def test_a_body_that_goes_on_as_new_gives_up_what_it_says() -> None:
    by = decision(CancelStep(seq=0), status=DecisionStatus.CONTINUED, ordered=0)
    found = moved(a_run(), pending(0), by=by)
    assert found.withdrawn == (0,)
    assert [each.name for each in found.checkpoints] == ["durable:continued"]
    assert found.effects == (TOLD, SendTurn("r", "r#2"))


def test_retry_does_not_take_it_for_what_has_failed() -> None:
    run = a_run(status=RunStatus.FAILED, task_id=None)
    assert type(retry_of(RunState(run, [given_up()]))).__name__ == "TurnRedriven"


def test_retry_takes_for_failed_what_has_failed_of_itself_with_the_same_code() -> None:
    run = a_run(status=RunStatus.FAILED, task_id=None)
    error = Failure(message="the customer has cancelled", code="cancelled", retryable=False)
    own = ended(pending(0), status=FAILED, error=error)
    assert retry_of(RunState(run, [own])) == StepRedriven(run_id="r", seq=0, attempt=1)
