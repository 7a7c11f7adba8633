"""What sending a dead letter again does to a run, and what hinders it."""

from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace

from durable_worker.operator.transitions.effects import (
    NOTHING,
    AwaitSignal,
    Deliver,
    SendStep,
    SendTurn,
    Transition,
)
from durable_worker.protocol.codec import MessageType
from durable_worker.protocol.commands import RetryOptions
from durable_worker.protocol.failure import GIVEN_UP, Failure
from durable_worker.protocol.names import CANCELLED_MARKER
from durable_worker.protocol.runs import RunStatus
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.inputs import (
    CancelRequested,
    StartRun,
    StepPoisoned,
    StepRedriven,
    TurnPoisoned,
    TurnRedriven,
    encode_input,
)
from durable_worker.stores.letters import LetterStatus, Redrive, Refusal, redrive_of, status_of
from durable_worker.stores.records import (
    INBOX,
    Checkpoint,
    CheckpointStatus,
    DeadLetter,
    Parent,
    Run,
    RunState,
)
from tests.unit.operator.samples import (
    NO,
    NOW,
    a_run,
    cancelled,
    ended,
    moved,
    next_turn,
    pending,
    suspended,
)

POISONED = Failure(message="poisoned", code="poison", retryable=False)
FAILED_AT = NOW - 3
AGAIN = StepRedriven(run_id="r", seq=0, attempt=1)


def poisoned(seq: int = 0, **changes: Any) -> Checkpoint:
    fields = {"status": CheckpointStatus.FAILED, "error": POISONED, "finished_at": FAILED_AT}
    return pending(seq, **{**fields, **changes})


def failed(**changes: Any) -> Run:
    """A run that ended just now, its second turn having been its last."""
    return suspended(
        **{
            "status": RunStatus.FAILED,
            "error": POISONED,
            "turn_no": 2,
            "updated_at": NOW - 1,
            **changes,
        }
    )


def recorded(seq: int, name: str, **changes: Any) -> Checkpoint:
    fields = {"name": name, "enqueued_at": NOW - 1, "finished_at": NOW - 1, **changes}
    return pending(seq, HistoryKind.STEP, status=CheckpointStatus.COMPLETED, **fields)


def taken_back(seq: int, kind: HistoryKind, **changes: Any) -> Checkpoint:
    return replace(cancelled(pending(seq, kind, **changes)), finished_at=NOW - 1)


def letter(**changes: Any) -> DeadLetter:
    fields: dict[str, Any] = {
        "id": "l",
        "received_at": NOW,
        "type": MessageType.STEP_TASK,
        "message_id": "r:0:1",
        "reason": "no",
        "body": b"{}",
        "run_id": "r",
        "seq": 0,
        **changes,
    }
    return DeadLetter(**fields)


def test_the_step_of_a_failed_run_is_pending_again_with_the_next_attempt() -> None:
    found = moved(failed(), poisoned(started_at=1, recoveries=2), by=AGAIN)
    assert found == Transition(
        next_turn(failed(), error=None),
        (pending(0, attempt=2),),
        (SendStep("r", 0, 2), SendTurn("r", "r#3")),
    )


def test_a_second_redrive_of_one_attempt_changes_nothing() -> None:
    assert moved(suspended(), pending(0, attempt=2), by=AGAIN) == NOTHING
    assert moved(suspended(), poisoned(attempt=2), by=AGAIN) == NOTHING
    assert moved(suspended(), ended(pending(0)), by=AGAIN) == NOTHING
    assert moved(suspended(), by=AGAIN) == NOTHING


def test_a_turn_that_is_out_knows_the_failure_and_its_decision_is_not_waited_for() -> None:
    found = moved(a_run(), poisoned(), by=AGAIN)
    assert found.run == next_turn(a_run())
    assert found.effects == (SendStep("r", 0, 2), SendTurn("r", "r#2"))


def test_an_answer_that_comes_again_is_awaited_under_the_same_attempt() -> None:
    found = moved(failed(), poisoned(), by=replace(AGAIN, keeps_attempt=True))
    assert found.checkpoints == (pending(0),)
    assert found.effects == (SendTurn("r", "r#3"),)


def test_what_the_run_waited_for_when_it_ended_is_waited_for_again() -> None:
    before = pending(6, HistoryKind.TIMER, status=CheckpointStatus.CANCELLED, finished_at=NOW - 4)
    found = moved(
        failed(),
        poisoned(),
        taken_back(1, HistoryKind.CALL, attempt=2),
        taken_back(2, HistoryKind.CALL, fires_at=NOW + 9, error=NO),
        taken_back(3, HistoryKind.TIMER, fires_at=NOW + 9),
        taken_back(4, HistoryKind.SIGNAL, name="go"),
        taken_back(5, HistoryKind.CHILD, name="c", input=Raw(b"1")),
        before,
        by=AGAIN,
    )
    assert [(each.seq, each.status) for each in found.checkpoints] == [
        (seq, CheckpointStatus.PENDING) for seq in range(6)
    ]
    child = StartRun(run_id="r.child.5", workflow="c", input=Raw(b"1"), parent=Parent("r", 5))
    assert found.effects == (
        SendStep("r", 0, 2),
        SendStep("r", 1, 2),
        AwaitSignal("r", 4, "default", "go"),
        Deliver(child),
        SendTurn("r", "r#3"),
    )


@pytest.mark.parametrize("name", ["durable:delivered", "event:state", "now#1", "patch:new"])
def test_what_the_body_recorded_on_account_of_the_failure_is_taken_back(name: str) -> None:
    found = moved(failed(), poisoned(), recorded(1, name), by=AGAIN)
    assert found.run is not None
    assert found.run.status is RunStatus.RUNNING
    assert found.withdrawn == (1,)


def test_what_was_recorded_before_the_failure_stays() -> None:
    before = recorded(1, "event:state", enqueued_at=NOW - 5)
    assert moved(failed(), poisoned(), before, by=AGAIN).withdrawn == ()


@pytest.mark.parametrize(
    ("later", "said"),
    [
        (pending(1, enqueued_at=NOW - 1), "it has asked for step 'step' (seq 1)"),
        (recorded(1, "local"), "it has asked for step 'local' (seq 1)"),
        (recorded(1, CANCELLED_MARKER), "it was cancelled (seq 1)"),
        (pending(1, HistoryKind.TIMER, enqueued_at=NOW - 1), "it has asked for a timer"),
        (pending(1, HistoryKind.SIGNAL, enqueued_at=NOW), "it has asked for signal 'step'"),
        (pending(1, HistoryKind.CHILD, enqueued_at=NOW), "it has asked for a child run of 'step'"),
        # The clock was set back meanwhile: the letter knows how far the body had come.
        (pending(8, enqueued_at=NOW - 99), "it has asked for step 'step' (seq 8)"),
    ],
)
def test_a_body_that_has_gone_on_since_hinders_it(later: Checkpoint, said: str) -> None:
    state = RunState(failed(), [poisoned(), later])
    outcome = redrive_of(letter(last_seq=7), state)
    assert isinstance(outcome, Refusal)
    assert said in outcome.reason
    assert "Start a new run" in outcome.reason
    by = replace(AGAIN, last_seq=7)
    assert moved(failed(), poisoned(), later, by=by) == NOTHING


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (failed(status=RunStatus.COMPLETED), "is completed, and stays so"),
        (failed(status=RunStatus.CANCELLED), "is cancelled, and stays so"),
        (failed(parent=Parent("p", 3)), "its parent 'p' has been told so"),
    ],
)
def test_an_end_that_others_know_of_is_not_taken_back(run: Run, said: str) -> None:
    outcome = redrive_of(letter(), RunState(run, [poisoned()]))
    assert isinstance(outcome, Refusal)
    assert said in outcome.reason
    assert moved(run, poisoned(), by=AGAIN) == NOTHING


def test_what_the_body_gave_up_after_the_failure_is_called_again() -> None:
    run = failed(ordered=6)
    before = poisoned(1, error=GIVEN_UP, order=3)
    after = poisoned(2, error=GIVEN_UP, order=5, retry=RetryOptions(attempts=1, timeout_ms=7))
    by_itself = poisoned(3, order=6)
    found = moved(run, poisoned(order=4), before, after, by_itself, by=AGAIN)
    assert found.run == next_turn(run, error=None, ordered=3)
    again = pending(2, attempt=2, retry=after.retry, fires_at=NOW + 7)
    assert found.checkpoints == (pending(0, attempt=2), again)
    assert found.effects == (SendStep("r", 0, 2), SendStep("r", 2, 2), SendTurn("r", "r#3"))


def test_what_was_given_up_is_called_again_also_if_the_answer_to_the_other_is_awaited() -> None:
    by = replace(AGAIN, keeps_attempt=True)
    found = moved(failed(), poisoned(order=1), poisoned(1, error=GIVEN_UP, order=2), by=by)
    assert found.checkpoints == (pending(0), pending(1, attempt=2))
    assert found.effects == (SendStep("r", 1, 2), SendTurn("r", "r#3"))


def test_the_compensation_of_a_cancelled_run_is_redriven_as_part_of_it() -> None:
    marker = recorded(0, CANCELLED_MARKER, enqueued_at=NOW - 6)
    by = replace(AGAIN, seq=1)
    found = moved(failed(), marker, poisoned(1), by=by)
    assert found.run is not None
    assert found.run.status is RunStatus.CANCELLING


def test_a_run_that_died_with_its_turn_gets_another_one() -> None:
    dead = failed(status=RunStatus.DEAD, recoveries=2)
    wait = taken_back(0, HistoryKind.SIGNAL, name="go")
    by = TurnRedriven(run_id="r", task_id="r#2")
    found = moved(dead, wait, by=by)
    assert found == Transition(
        next_turn(dead, error=None),
        (replace(wait, status=CheckpointStatus.PENDING, finished_at=None),),
        (AwaitSignal("r", 0, "default", "go"), SendTurn("r", "r#3")),
    )
    again = moved(dead, by=replace(by, keeps_turn=True)).run
    assert again is not None
    assert (again.task_id, again.is_dirty, again.status) == ("r#2", True, RunStatus.RUNNING)
    cancelling = moved(dead, by=replace(by, is_cancelling=True)).run
    assert cancelling is not None
    assert cancelling.status is RunStatus.CANCELLING
    assert moved(a_run(), by=by) == NOTHING
    assert moved(dead, by=replace(by, task_id="r#1")) == NOTHING


@pytest.mark.parametrize(
    ("found", "state", "status", "outcome"),
    [
        (letter(), None, LetterStatus.KEPT, "no run 'r'"),
        (letter(seq=5), RunState(a_run()), LetterStatus.KEPT, "no step at seq 5"),
        (letter(), RunState(a_run(), [pending(0)]), LetterStatus.SENT_AGAIN, "goes on by itself"),
        (
            letter(),
            RunState(a_run(), [ended(pending(0))]),
            LetterStatus.SETTLED,
            "did not fail because of it: it is completed",
        ),
        (
            letter(),
            RunState(a_run(), [poisoned(attempt=2)]),
            LetterStatus.SETTLED,
            "did not fail because of it",
        ),
        (
            letter(),
            RunState(a_run(), [poisoned(error=Failure(message="declined", code="card"))]),
            LetterStatus.SETTLED,
            "did not fail because of it",
        ),
        (letter(), RunState(a_run(), [poisoned()]), LetterStatus.FAILED_STEP, Redrive(AGAIN)),
        (
            letter(message_id="r:0:2"),
            RunState(a_run(), [poisoned(error=Failure(message="?", code="malformed"))]),
            LetterStatus.FAILED_STEP,
            Redrive(AGAIN),
        ),
        (
            letter(type=MessageType.STEP_RESULT),
            RunState(a_run(), [pending(0)]),
            LetterStatus.SENT_AGAIN,
            Redrive(is_sent=True),
        ),
        (
            letter(task_id="r#2", seq=None, body=b'{"cancel":true}'),
            RunState(failed(status=RunStatus.DEAD)),
            LetterStatus.FAILED_RUN,
            Redrive(TurnRedriven(run_id="r", task_id="r#2", is_cancelling=True)),
        ),
        (
            letter(task_id="r#1", seq=None),
            RunState(failed(status=RunStatus.DEAD)),
            LetterStatus.SETTLED,
            "did not end because of it",
        ),
        (
            letter(type=MessageType.START_RUN, run_id=None, seq=None),
            None,
            LetterStatus.KEPT,
            Redrive(is_sent=True),
        ),
        (
            letter(type="x", run_id=None, seq=None),
            None,
            LetterStatus.KEPT,
            "nothing tells from which queue it came",
        ),
        (
            letter(type=None, queue=INBOX, body=encode_input(CancelRequested(run_id="r"))),
            None,
            LetterStatus.KEPT,
            Redrive(CancelRequested(run_id="r")),
        ),
        (
            letter(type=None, queue=INBOX, body=b'{"type":"unheard-of"}'),
            None,
            LetterStatus.KEPT,
            "cannot read it either",
        ),
    ],
)
def test_what_became_of_a_letter_and_what_sends_it_again(
    found: DeadLetter, state: RunState | None, status: LetterStatus, outcome: Redrive | str
) -> None:
    assert status_of(found, state) is status
    judged = redrive_of(found, state)
    if isinstance(outcome, str):
        assert isinstance(judged, Refusal)
        assert outcome in judged.reason
    else:
        assert judged == outcome
    assert status_of(replace(found, redriven_at=1), state) is LetterStatus.REDRIVEN


def test_poison_names_the_step_how_often_it_was_delivered_and_what_to_do() -> None:
    by = StepPoisoned(
        run_id="r",
        seq=0,
        reason="limit",
        is_suspicion=True,
        recoveries=2,
        deliveries=11,
        letter="l",
    )
    found = moved(suspended(), pending(0, recoveries=2), by=by)
    error = found.checkpoints[0].error
    assert error is not None
    assert error.message == (
        "step 'step' (seq 0, attempt 1) was delivered 33 times and never answered: the process "
        "that took it died or lost its connection each time. `durable-worker dead show l` shows "
        "the message; once the cause is mended, `dead redrive` has it sent again"
    )
    turn = moved(a_run(), by=TurnPoisoned(run_id="r", task_id="r#1", reason="not JSON", letter="l"))
    assert turn.run is not None
    assert turn.run.error is not None
    assert turn.run.error.message.startswith(
        "a message of a turn of this run could not be used: not JSON. `durable-worker dead show l`"
    )
