"""Lost, poisoned and unknown: what a transition makes of trouble."""

from msgspec.structs import replace

from durable_worker.operator.transitions.apply import apply, carried_by
from durable_worker.operator.transitions.effects import (
    NOTHING,
    Bury,
    Limits,
    SendStep,
    SendTurn,
    Transition,
)
from durable_worker.protocol.commands import (
    RetryOptions,
)
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.runs import RunStatus
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.inputs import (
    CancelRequested,
    Redispatched,
    RunInput,
    StepLost,
    StepPoisoned,
    TurnLost,
    TurnPoisoned,
)
from durable_worker.stores.records import (
    CheckpointStatus,
)
from tests.unit.operator.samples import (
    NO,
    NOW,
    a_run,
    ended,
    moved,
    next_turn,
    pending,
    result,
    suspended,
)


def test_a_lost_turn_is_sent_under_a_new_id_until_the_limit() -> None:
    by = TurnLost(run_id="r", task_id="r#1")
    assert moved(a_run(is_dirty=True), by=by) == Transition(
        next_turn(a_run(), recoveries=1), (), (SendTurn("r", "r#2"),)
    )
    found = moved(a_run(recoveries=2), pending(0), by=by, limits=Limits(recoveries=2))
    assert found.run is not None
    assert found.run.error is not None
    assert (found.run.status, found.run.error.code) == (RunStatus.DEAD, "dead-letter")
    uncounted = TurnLost(run_id="r", task_id="r#1", is_counted=False)
    assert moved(a_run(recoveries=2), by=uncounted, limits=Limits(recoveries=2)).run == next_turn(
        a_run(), recoveries=2
    )
    assert moved(a_run(), by=TurnLost(run_id="r", task_id="r#0")) == NOTHING


def test_a_lost_step_is_sent_again_until_the_limit() -> None:
    step = pending(0, attempt=2)
    by = StepLost(run_id="r", seq=0, attempt=2, recoveries=0)
    assert moved(suspended(), step, by=by) == Transition(
        None, (replace(step, recoveries=1),), (SendStep("r", 0, 2),)
    )
    assert moved(suspended(), replace(step, recoveries=1), by=by) == NOTHING
    found = moved(suspended(), step, by=by, limits=Limits(recoveries=0))
    assert found.checkpoints[0].error is not None
    assert found.checkpoints[0].error.code == "poison"
    assert found.effects[0] == SendTurn("r", "r#2")
    (buried,) = (each for each in found.effects if isinstance(each, Bury))
    assert (buried.seq, buried.attempt) == (0, 2)
    assert "dead list" in found.checkpoints[0].error.message


def test_poison_fails_the_step_or_ends_the_run() -> None:
    step = pending(0, retry=RetryOptions(attempts=9))
    by: RunInput = StepPoisoned(run_id="r", seq=0, reason="bad")
    error = Failure(message="bad", code="poison", retryable=False)
    failed = ended(step, status=CheckpointStatus.FAILED, error=error)
    assert moved(suspended(), step, by=by).checkpoints == (failed,)
    old = StepPoisoned(run_id="r", seq=0, reason="bad", attempt=7)
    assert moved(suspended(), step, by=old) == NOTHING
    by = TurnPoisoned(run_id="r", task_id="r#1", reason="bad")
    assert moved(a_run(), by=by).run == suspended(
        status=RunStatus.DEAD, error=error, updated_at=NOW
    )
    assert moved(a_run(turn_no=2, task_id="r#2"), by=by) == NOTHING


def test_what_the_broker_gave_up_on_is_sent_twice_more_before_it_counts_as_poison() -> None:
    def gave_up(recoveries: int) -> RunInput:
        return StepPoisoned(
            run_id="r", seq=0, reason="limit", attempt=1, is_suspicion=True, recoveries=recoveries
        )

    for times in (0, 1):
        found = moved(suspended(), pending(0, recoveries=times), by=gave_up(times))
        again = pending(0, recoveries=times + 1)
        assert found == Transition(None, (again,), (SendStep("r", 0, 1),))
    assert moved(suspended(), pending(0, recoveries=1), by=gave_up(0)) == NOTHING
    error = Failure(message="limit", code="poison", retryable=False)
    last = moved(suspended(), pending(0, recoveries=2), by=gave_up(2))
    assert [(each.status, each.error) for each in last.checkpoints] == [
        (CheckpointStatus.FAILED, error)
    ]


def test_a_turn_that_the_broker_gave_up_on_is_sent_twice_more_before_the_run_is_dead() -> None:
    by: RunInput = TurnPoisoned(run_id="r", task_id="r#1", reason="limit", is_suspicion=True)
    for times in (0, 1):
        found = moved(a_run(recoveries=times), by=by)
        assert found == Transition(
            next_turn(a_run(), recoveries=times + 1), (), (SendTurn("r", "r#2"),)
        )
    dead = moved(a_run(recoveries=2), by=by).run
    assert dead is not None
    assert dead.status is RunStatus.DEAD


def test_redispatch_sends_the_turn_and_every_attempt_that_is_out() -> None:
    found = moved(
        a_run(recoveries=1),
        pending(0),
        pending(1, fires_at=NOW, error=NO),
        pending(2, HistoryKind.SIGNAL),
        by=Redispatched(run_id="r"),
    )
    assert found == Transition(
        next_turn(a_run(), recoveries=1), (), (SendTurn("r", "r#2"), SendStep("r", 0, 1))
    )


def test_inputs_for_unknown_runs_are_dropped() -> None:
    assert apply(None, result(), now=NOW) == NOTHING
    assert apply(None, CancelRequested(run_id="r"), now=NOW) == NOTHING


def test_a_turn_that_leaves_later_carries_what_was_resolved_meanwhile() -> None:
    dirty = a_run(is_dirty=True)
    assert carried_by(dirty, "r#1") == a_run()
    assert carried_by(dirty, "r#0") is dirty
