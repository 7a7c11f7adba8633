"""Transitions, one input at a time: whole values compared."""

import pytest
from msgspec import Raw
from msgspec.structs import replace

from durable_worker.operator.transitions.apply import apply
from durable_worker.operator.transitions.effects import (
    NOTHING,
    AwaitSignal,
    BroadcastCancel,
    Deliver,
    Limits,
    SendStep,
    SendTurn,
    Transition,
)
from durable_worker.protocol.commands import (
    AnyCommand,
    DecisionStatus,
    RecordStep,
    RetryOptions,
    ScheduleStep,
    StartChild,
    StartTimer,
    WaitSignal,
)
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.results import EventLevel, StepEvent
from durable_worker.protocol.runs import RunStatus
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.inputs import (
    CancelRequested,
    ChildEnded,
    RunInput,
    SignalMatched,
    StartRun,
    TimerDue,
    WorkflowAvailable,
)
from durable_worker.stores.records import (
    LAST_INSTANT,
    UNORDERED,
    CheckpointStatus,
    Parent,
    RunState,
)
from tests.unit.operator.samples import (
    NO,
    NOW,
    a_run,
    cancelled,
    decision,
    ended,
    moved,
    next_turn,
    pending,
    result,
    suspended,
)


def test_a_start_on_a_known_version_sends_the_first_turn() -> None:
    start = StartRun(run_id="r", workflow="w", version="2", input=Raw(b"1"), tags=("t",))
    found = apply(None, start, now=NOW)
    assert found.run == a_run(
        version="2", input=Raw(b"1"), tags=("t",), created_at=NOW, updated_at=NOW, ordered=None
    )
    assert found.effects[0] == SendTurn("r", "r#1")


def test_a_start_without_a_worker_stays_pending_until_one_appears() -> None:
    waiting = apply(None, StartRun(run_id="r", workflow="w"), now=NOW)
    assert waiting.run is not None
    assert (waiting.run.status, waiting.run.task_id, waiting.effects) == (
        RunStatus.PENDING,
        None,
        (),
    )
    by = WorkflowAvailable(run_id="r", version="3")
    assert moved(waiting.run, by=by) == Transition(
        next_turn(waiting.run, version="3"), (), (SendTurn("r", "r#1"),)
    )


def test_a_child_that_ended_answers_its_parent_again() -> None:
    start = StartRun(run_id="r", workflow="w", parent=Parent("p", 4))
    done = suspended(status=RunStatus.COMPLETED, output=Raw(b"7"), parent=Parent("p", 4))
    told = ChildEnded(run_id="p", seq=4, status=RunStatus.COMPLETED, output=Raw(b"7"))
    assert moved(done, by=start) == Transition(None, (), (Deliver(told),))
    assert moved(suspended(parent=Parent("p", 4)), by=start) == NOTHING


def test_a_child_whose_id_is_taken_fails_instead_of_hanging() -> None:
    found = moved(suspended(), by=StartRun(run_id="r", workflow="w", parent=Parent("p", 4)))
    (effect,) = found.effects
    assert isinstance(effect, Deliver)
    assert isinstance(effect.input, ChildEnded)
    assert effect.input.error is not None
    assert effect.input.error.code == "run-id-taken"


def test_commands_become_checkpoints_and_effects_in_order() -> None:
    retry = RetryOptions(attempts=2)
    found = moved(
        a_run(partition="eu"),
        by=decision(
            RecordStep(seq=0, name="now", output=Raw(b"1"), started_at=5, finished_at=6),
            ScheduleStep(seq=1, name="a", group="default", retry=retry, parallel_group="p"),
            ScheduleStep(seq=2, name="b", group="gpu", input=Raw(b"2")),
            StartTimer(seq=3, ms=50),
            WaitSignal(seq=4, signal="go"),
            StartChild(seq=5, workflow="c", input=Raw(b"3")),
            RecordStep(seq=6, name="failed", error=NO),
        ),
    )
    at = {"enqueued_at": NOW}
    child = StartRun(
        run_id="r.child.5", workflow="c", input=Raw(b"3"), partition="eu", parent=Parent("r", 5)
    )
    assert found == Transition(
        suspended(partition="eu", updated_at=NOW),
        (
            ended(
                pending(0, HistoryKind.STEP, name="now", **at),
                output=Raw(b"1"),
                started_at=5,
                finished_at=6,
            ),
            pending(1, name="a", retry=retry, parallel_group="p", **at),
            pending(2, name="b", partition="gpu", input=Raw(b"2"), **at),
            pending(3, HistoryKind.TIMER, name="sleep:3", fires_at=NOW + 50, **at),
            pending(4, HistoryKind.SIGNAL, name="go", **at),
            pending(5, HistoryKind.CHILD, name="c", input=Raw(b"3"), **at),
            ended(
                pending(6, HistoryKind.STEP, name="failed", **at),
                status=CheckpointStatus.FAILED,
                error=NO,
            ),
        ),
        (
            SendStep("r", 1, 1),
            SendStep("r", 2, 1),
            AwaitSignal("r", 4, "default", "go"),
            Deliver(child),
        ),
    )


@pytest.mark.parametrize(
    "command",
    [
        ScheduleStep(seq=0, name="other", group="default"),
        RecordStep(seq=0, name="other"),
        WaitSignal(seq=0, signal="other"),
        StartChild(seq=0, workflow="other"),
        StartTimer(seq=0, ms=9),
    ],
)
def test_a_command_for_a_seq_that_has_a_checkpoint_is_skipped(command: AnyCommand) -> None:
    found = moved(a_run(), pending(0), by=decision(command))
    assert found == Transition(suspended(updated_at=NOW), (), ())


def test_a_repeated_timer_keeps_its_deadline_and_one_not_repeated_loses_it() -> None:
    kept = pending(0, HistoryKind.TIMER, fires_at=NOW + 1)
    dropped = pending(1, HistoryKind.TIMER, fires_at=NOW + 2)
    found = moved(a_run(), kept, dropped, by=decision(StartTimer(seq=0, ms=99)))
    assert found == Transition(suspended(updated_at=NOW), (cancelled(dropped),), ())


def test_a_timer_that_is_asked_for_again_gets_back_its_first_deadline() -> None:
    timer = pending(0, HistoryKind.TIMER, fires_at=NOW - 1)
    found = moved(a_run(), cancelled(timer), by=decision(StartTimer(seq=0, ms=99)))
    assert found == Transition(suspended(updated_at=NOW), (timer,), ())


def test_absurd_durations_end_at_the_last_instant() -> None:
    found = moved(a_run(), by=decision(StartTimer(seq=0, ms=2**63)))
    assert found.checkpoints[0].fires_at == LAST_INSTANT


def test_a_decision_for_another_turn_is_dropped() -> None:
    by = decision(ScheduleStep(seq=0, name="a", group="default"), task_id="r#0")
    assert moved(a_run(), by=by) == NOTHING


def test_a_dirty_run_gets_another_turn_at_once() -> None:
    found = moved(a_run(is_dirty=True, recoveries=2), pending(0), by=decision())
    assert found == Transition(next_turn(a_run()), (), (SendTurn("r", "r#2"),))


def test_a_turn_that_only_recorded_something_gets_another_one() -> None:
    found = moved(a_run(), by=decision(RecordStep(seq=0, name="now")))
    assert (found.run, found.effects) == (next_turn(a_run()), (SendTurn("r", "r#2"),))


def test_a_run_that_waits_for_nothing_fails_as_stuck() -> None:
    found = moved(a_run(), by=decision())
    assert found.run is not None
    assert found.run.error is not None
    assert (found.run.status, found.run.error.code) == (RunStatus.FAILED, "stuck")


def test_completion_records_its_steps_and_cancels_what_is_pending() -> None:
    child = pending(1, HistoryKind.CHILD)
    found = moved(
        a_run(parent=Parent("p", 9)),
        child,
        by=decision(
            RecordStep(seq=2, name="now"),
            ScheduleStep(seq=3, name="never", group="default"),
            status=DecisionStatus.COMPLETED,
            output=b"true",
        ),
    )
    told = ChildEnded(run_id="p", seq=9, status=RunStatus.COMPLETED, output=Raw(b"true"))
    assert found == Transition(
        suspended(
            parent=Parent("p", 9),
            status=RunStatus.COMPLETED,
            output=Raw(b"true"),
            updated_at=NOW,
        ),
        (ended(pending(2, HistoryKind.STEP, name="now", enqueued_at=NOW)), cancelled(child)),
        (Deliver(told),),
    )


def test_a_failure_without_a_reason_says_so() -> None:
    found = moved(a_run(), by=decision(status=DecisionStatus.FAILED))
    assert found.run is not None
    assert found.run.error == Failure(message="the workflow failed without saying why")


@pytest.mark.parametrize(
    ("by", "is_final"),
    [
        (CancelRequested(run_id="r", is_final=True), True),
        (decision(status=DecisionStatus.CANCELLED), False),
    ],
)
def test_cancelling_reaches_steps_children_and_the_parent(by: RunInput, is_final: bool) -> None:
    step, child = pending(0), pending(1, HistoryKind.CHILD)
    error = Failure(message="the run was cancelled", code="cancelled")
    parent = Parent("p", 9)
    assert moved(a_run(parent=parent), step, child, by=by) == Transition(
        suspended(status=RunStatus.CANCELLED, error=error, parent=parent, updated_at=NOW),
        (cancelled(step), cancelled(child)),
        (
            Deliver(CancelRequested(run_id="r.child.1", is_final=is_final)),
            BroadcastCancel("r"),
            Deliver(ChildEnded(run_id="p", seq=9, status=RunStatus.CANCELLED, error=error)),
        ),
    )


def test_a_run_that_is_replaced_says_by_which() -> None:
    found = moved(a_run(), by=CancelRequested(run_id="r", is_final=True, replaced_by="r~2"))
    assert found.run is not None
    assert (found.run.status, found.run.error) == (
        RunStatus.CANCELLED,
        Failure(message="run 'r~2' was started in its place", code="replaced"),
    )


def test_a_cancelled_body_is_told_by_a_turn_and_its_running_steps_by_their_seqs() -> None:
    step, child = pending(0), pending(1, HistoryKind.CHILD)
    cancelling = next_turn(suspended(status=RunStatus.CANCELLING))
    assert moved(suspended(), step, child, by=CancelRequested(run_id="r")) == Transition(
        replace(cancelling, status=RunStatus.CANCELLING),
        (),
        (SendTurn("r", "r#2"), BroadcastCancel("r", (0,))),
    )


def test_a_turn_that_is_out_is_not_waited_for_when_its_run_is_cancelled() -> None:
    found = moved(a_run(is_dirty=True), by=CancelRequested(run_id="r"))
    assert found.run is not None
    assert (found.run.status, found.run.is_dirty) == (RunStatus.CANCELLING, False)
    assert found.effects == (SendTurn("r", "r#2"),)
    late = decision(status=DecisionStatus.COMPLETED)
    assert apply(RunState(found.run), late, now=NOW) == NOTHING


@pytest.mark.parametrize("status", [RunStatus.PENDING, RunStatus.SUSPENDED])
def test_a_run_ends_at_once_if_its_body_never_began(status: RunStatus) -> None:
    run = suspended(status=status, version=None)
    found = moved(run, by=CancelRequested(run_id="r"))
    assert found.run is not None
    assert found.run.status is RunStatus.CANCELLED


MARKER = "durable:cancelled"
CANCELLED_HERE = RecordStep(seq=1, name="durable:cancelled", output=Raw(b"[]"))


def test_a_run_is_cancelling_until_its_body_has_ended() -> None:
    run = a_run(status=RunStatus.CANCELLING)
    state = RunState(run, [pending(0, HistoryKind.SIGNAL)])
    undo = ScheduleStep(seq=2, name="undo", group="default")
    for by in (decision(CANCELLED_HERE, undo), result(seq=2), decision(task_id="r#2")):
        found = apply(state, by, now=NOW)
        assert found.run is not None
        assert found.run.status is RunStatus.CANCELLING
        state.absorb(found.run, found.checkpoints)
    again = apply(state, CancelRequested(run_id="r"), now=NOW)
    assert again == NOTHING
    killed = apply(state, CancelRequested(run_id="r", is_final=True), now=NOW)
    assert killed.run is not None
    assert killed.run.status is RunStatus.CANCELLED


def test_a_worker_that_does_not_know_of_cancellation_does_not_keep_the_run_alive() -> None:
    step = ScheduleStep(seq=1, name="next", group="default")
    note = RecordStep(seq=0, name="now#0", output=Raw(b"5"))
    found = moved(a_run(status=RunStatus.CANCELLING), by=decision(note, step))
    assert found.run is not None
    assert found.run.status is RunStatus.CANCELLED
    assert [each.seq for each in found.checkpoints] == [0]
    assert not [each for each in found.effects if isinstance(each, SendStep)]


@pytest.mark.parametrize("status", [DecisionStatus.COMPLETED, DecisionStatus.FAILED])
def test_a_cancelled_body_may_end_otherwise_but_its_children_are_cancelled(
    status: DecisionStatus,
) -> None:
    child = pending(1, HistoryKind.CHILD)
    found = moved(a_run(status=RunStatus.CANCELLING), child, by=decision(status=status))
    assert found.run is not None
    assert found.run.status.value == status.value
    assert found.effects == (Deliver(CancelRequested(run_id="r.child.1")),)


def test_the_children_of_a_run_that_is_ended_at_once_are_ended_at_once() -> None:
    by = CancelRequested(run_id="r", is_final=True)
    found = moved(a_run(), pending(1, HistoryKind.CHILD), by=by)
    assert found.effects[0] == Deliver(CancelRequested(run_id="r.child.1", is_final=True))


def test_a_body_that_has_ended_before_its_cancellation_still_starts_its_children() -> None:
    commands = (StartChild(seq=1, workflow="kid"), StartTimer(seq=2, ms=0))
    found = moved(a_run(status=RunStatus.CANCELLING), by=decision(*commands))
    assert found.run is not None
    assert found.run.status is RunStatus.CANCELLING
    assert [each.seq for each in found.checkpoints] == [1, 2]


@pytest.mark.parametrize(("marker_at", "attempts"), [(5, 1), (None, 2)])
def test_what_a_cancelled_body_has_given_up_is_not_tried_again(
    marker_at: int | None, attempts: int
) -> None:
    retry = RetryOptions(attempts=3)
    call = pending(2, retry=retry)
    marker = [] if marker_at is None else [ended(pending(5, HistoryKind.STEP, name=MARKER))]
    run = suspended(status=RunStatus.CANCELLING)
    failed = moved(run, call, *marker, by=result(seq=2, error=NO))
    assert [each.attempt for each in failed.checkpoints if each.seq == 2] == [attempts]

    waiting = pending(2, retry=retry, attempt=2, fires_at=NOW - 1, error=NO)
    due = moved(run, waiting, *marker, by=TimerDue(run_id="r", seq=2))
    is_sent = SendStep("r", 2, 2) in due.effects
    assert is_sent is (marker_at is None)

    undoing = moved(run, pending(7, retry=retry), *marker, by=result(seq=7, error=NO))
    assert [each.attempt for each in undoing.checkpoints if each.seq == 7] == [2]


def test_a_result_starts_a_turn_or_marks_the_run_dirty() -> None:
    step = pending(0, attempt=2, events=(StepEvent(at=1, level=EventLevel.INFO, message="a"),))
    later = StepEvent(at=2, level=EventLevel.INFO, message="b")
    by = result(attempt=2, output=Raw(b"5"), started_at=NOW - 3, events=[later])
    done = ended(step, output=Raw(b"5"), started_at=NOW - 3, events=(*step.events, later))
    assert moved(suspended(), step, by=by) == Transition(
        next_turn(suspended()), (done,), (SendTurn("r", "r#2"),)
    )
    assert moved(a_run(), step, by=by) == Transition(
        a_run(is_dirty=True, updated_at=NOW), (done,), ()
    )


@pytest.mark.parametrize("attempt", [1, 3])
def test_a_result_of_another_attempt_is_dropped(attempt: int) -> None:
    assert moved(suspended(), pending(0, attempt=2), by=result(attempt=attempt)) == NOTHING


def test_a_result_for_what_is_not_a_pending_call_is_dropped() -> None:
    assert moved(suspended(), by=result()) == NOTHING
    assert moved(suspended(), ended(pending(0)), by=result()) == NOTHING
    assert moved(suspended(), pending(0, HistoryKind.SIGNAL), by=result()) == NOTHING
    waiting = pending(0, attempt=2, fires_at=NOW, error=NO)
    assert moved(suspended(), waiting, by=result(attempt=None)) == NOTHING


def test_results_are_counted_in_the_order_in_which_they_come() -> None:
    state = RunState(suspended(), [pending(0), pending(1, HistoryKind.SIGNAL), pending(2)])
    inputs: list[RunInput] = [
        result(seq=2),
        decision(RecordStep(seq=3, name="now#3"), task_id="r#2"),
        result(seq=0, error=NO),
        SignalMatched(run_id="r", seq=1),
    ]
    for by in inputs:
        found = apply(state, by, now=NOW)
        state.absorb(found.run, found.checkpoints)
    assert {seq: each.order for seq, each in state.checkpoints.items()} == {
        0: 2,
        1: 3,
        2: 1,
        3: None,
    }


@pytest.mark.parametrize(
    ("before", "told", "after"), [(None, 0, 0), (None, None, UNORDERED), (0, 3, 3)]
)
def test_the_first_decision_says_whether_a_run_goes_by_the_order_of_its_results(
    before: int | None, told: int | None, after: int
) -> None:
    wait = WaitSignal(seq=0, signal="go")
    found = moved(a_run(ordered=before), by=decision(wait, ordered=told))
    assert found.run is not None
    assert found.run.ordered == after


@pytest.mark.parametrize("status", [DecisionStatus.CONTINUE, DecisionStatus.COMPLETED])
def test_a_worker_that_does_not_go_by_the_order_is_not_believed(status: DecisionStatus) -> None:
    by = decision(ScheduleStep(seq=5, name="a", group="default"), status=status)
    limits = Limits(second_chances=1)
    again = moved(a_run(ordered=2), by=by, limits=limits)
    assert again == Transition(
        next_turn(a_run(ordered=2), recoveries=1), (), (SendTurn("r", "r#2"),)
    )
    found = moved(a_run(ordered=2, recoveries=1), by=by, limits=limits)
    assert found.run is not None
    assert found.run.error is not None
    assert found.run.status is RunStatus.BLOCKED
    assert "a worker of an older release answered a turn of this run" in found.run.error.message


def test_a_failure_is_tried_again_after_its_delay_and_then_final() -> None:
    retry = RetryOptions(attempts=2, initial_ms=100)
    step = pending(0, retry=retry, recoveries=3)
    waiting = replace(step, attempt=2, fires_at=NOW + 100, error=NO, recoveries=0)
    assert moved(suspended(), step, by=result(error=NO)) == Transition(None, (waiting,), ())
    due = replace(waiting, fires_at=NOW)
    sent = replace(waiting, fires_at=None)
    assert moved(suspended(), due, by=TimerDue(run_id="r", seq=0)) == Transition(
        None, (sent,), (SendStep("r", 0, 2),)
    )
    final = ended(sent, status=CheckpointStatus.FAILED, error=NO)
    assert moved(suspended(), sent, by=result(error=NO, attempt=2)) == Transition(
        next_turn(suspended()), (final,), (SendTurn("r", "r#2"),)
    )


@pytest.mark.parametrize(
    "failure", [Failure(message="no", retryable=False), Failure(message="no", code="fatal")]
)
def test_a_failure_that_rules_out_retries_is_final(failure: Failure) -> None:
    step = pending(0, retry=RetryOptions(attempts=9, non_retryable=["fatal"]))
    found = moved(suspended(), step, by=result(error=failure))
    assert found.checkpoints == (ended(step, status=CheckpointStatus.FAILED, error=failure),)


LIMITED = RetryOptions(attempts=2, initial_ms=100, timeout_ms=1_500)
TOO_LATE = Failure(message="no result came within 1.5 s", code="timeout")
DUE = TimerDue(run_id="r", seq=0)


def test_an_attempt_that_may_not_take_forever_is_asked_for_with_its_deadline() -> None:
    call = ScheduleStep(seq=0, name="s", group="default", retry=LIMITED)
    found = moved(a_run(), by=decision(call))
    out = pending(0, name="s", retry=LIMITED, fires_at=NOW + 1_500, enqueued_at=NOW)
    assert (found.checkpoints, found.effects[0]) == ((out,), SendStep("r", 0, 1))


def test_an_attempt_without_a_result_in_time_has_failed() -> None:
    out = pending(0, retry=LIMITED, fires_at=NOW, recoveries=1)
    waiting = replace(out, attempt=2, fires_at=NOW + 100, error=TOO_LATE, recoveries=0)
    assert moved(suspended(), out, by=DUE) == Transition(None, (waiting,), ())
    assert moved(suspended(), replace(out, fires_at=NOW + 1), by=DUE) == NOTHING
    again = replace(waiting, fires_at=NOW + 1_500, error=None)
    assert moved(suspended(), replace(waiting, fires_at=NOW), by=DUE) == Transition(
        None, (again,), (SendStep("r", 0, 2),)
    )
    final = replace(again, fires_at=NOW)
    assert moved(suspended(), final, by=DUE) == Transition(
        next_turn(suspended()),
        (replace(ended(final, status=CheckpointStatus.FAILED, error=TOO_LATE), fires_at=None),),
        (SendTurn("r", "r#2"),),
    )


def test_a_result_in_time_counts_and_one_of_an_attempt_that_was_given_up_does_not() -> None:
    out = pending(0, retry=LIMITED, fires_at=NOW + 9)
    found = moved(suspended(), out, by=result(output=Raw(b"1")))
    done = replace(ended(out, output=Raw(b"1")), fires_at=None)
    assert found.checkpoints == (done,)
    failed = replace(out, attempt=2, fires_at=NOW + 100, error=NO)
    assert moved(suspended(), out, by=result(error=NO)).checkpoints == (failed,)
    second = replace(out, attempt=2)
    assert moved(suspended(), second, by=result(attempt=1)) == NOTHING
    waiting = replace(out, attempt=2, error=TOO_LATE)
    assert moved(suspended(), waiting, by=result(attempt=None)) == NOTHING


def test_a_timeout_that_is_ruled_out_of_retries_is_final() -> None:
    retry = replace(LIMITED, non_retryable=["timeout"])
    out = pending(0, retry=retry, fires_at=NOW)
    (found,) = moved(suspended(), out, by=DUE).checkpoints
    assert (found.status, found.error) == (CheckpointStatus.FAILED, TOO_LATE)


def test_a_timer_fires_when_it_is_due_and_not_before() -> None:
    due, early = (pending(0, HistoryKind.TIMER, fires_at=at) for at in (NOW, NOW + 1))
    by = TimerDue(run_id="r", seq=0)
    assert moved(suspended(), due, by=by).checkpoints == (ended(due),)
    assert moved(suspended(), early, by=by) == NOTHING


def test_signals_and_children_resolve_their_waits() -> None:
    wait, child = pending(0, HistoryKind.SIGNAL), pending(0, HistoryKind.CHILD)
    by: RunInput = SignalMatched(run_id="r", seq=0, payload=Raw(b"1"))
    assert moved(suspended(), wait, by=by).checkpoints == (ended(wait, output=Raw(b"1")),)
    by = ChildEnded(run_id="r", seq=0, status=RunStatus.COMPLETED, output=Raw(b"2"))
    assert moved(suspended(), child, by=by).checkpoints == (ended(child, output=Raw(b"2")),)
    by = ChildEnded(run_id="r", seq=0, status=RunStatus.DEAD, error=NO)
    failed = ended(child, status=CheckpointStatus.FAILED, error=NO)
    assert moved(suspended(), child, by=by).checkpoints == (failed,)
