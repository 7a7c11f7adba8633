"""A run whose code fails it is kept, and tried again."""

from msgspec.structs import replace

from durable_worker.operator.transitions.apply import apply
from durable_worker.operator.transitions.effects import NOTHING, Emit, SendTurn
from durable_worker.protocol.commands import DecisionStatus, RecordStep, WaitSignal
from durable_worker.protocol.control import EngineEventType
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.runs import RunStatus
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.inputs import (
    CancelRequested,
    DecisionReceived,
    RunInput,
    TimerDue,
    Unparked,
)
from durable_worker.stores.records import PARKED_SEQ, RunState
from tests.unit.operator.samples import NOW, a_run, decision, moved, pending, result, suspended

BROKEN = Failure(message="the code asks for something else", code="nondeterminism")


def parking(task_id: str = "r#1") -> DecisionReceived:
    told = decision(
        RecordStep(seq=9, name="now#9"),
        status=DecisionStatus.FAILED,
        error=BROKEN,
        task_id=task_id,
    )
    return DecisionReceived(run_id="r", decision=replace(told.decision, park=True))


def parked(*operations: RunInput, at: int = NOW) -> RunState:
    state = RunState(a_run(), [pending(0)])
    for by in (parking(), *operations):
        found = apply(state, by, now=at)
        state.absorb(found.run, found.checkpoints, found.withdrawn)
    return state


def test_a_parked_run_is_blocked_with_its_reason_and_keeps_what_it_waits_for() -> None:
    found = apply(RunState(a_run(is_dirty=True), [pending(0)]), parking(), now=NOW)
    assert found.run == suspended(status=RunStatus.BLOCKED, error=BROKEN, updated_at=NOW)
    timer = pending(
        PARKED_SEQ, HistoryKind.TIMER, name="parked", fires_at=NOW + 10_000, enqueued_at=NOW
    )
    assert found.checkpoints == (timer,)
    (told,) = found.effects
    assert isinstance(told, Emit)
    assert (told.type, told.error) == (EngineEventType.RUN_BLOCKED, BROKEN)


def test_what_comes_meanwhile_is_kept_for_its_next_turn() -> None:
    state = parked(result())
    assert state.run.status is RunStatus.BLOCKED
    assert state.checkpoints[0].order == 1
    due = apply(state, TimerDue(run_id="r", seq=PARKED_SEQ), now=NOW + 10_000)
    assert due.run is not None
    assert (due.run.status, due.run.error) == (RunStatus.RUNNING, None)
    assert due.effects == (SendTurn("r", "r#2"),)


def test_each_time_it_waits_longer_until_a_turn_succeeds() -> None:
    state, now, waits = RunState(a_run(), [pending(0)]), NOW, list[int]()
    for turn in range(1, 10):
        found = apply(state, parking(f"r#{turn}"), now=now)
        state.absorb(found.run, found.checkpoints, found.withdrawn)
        fires_at = state.pending[PARKED_SEQ].fires_at
        assert fires_at is not None
        waits.append((fires_at - now) // 1_000)
        now = fires_at
        found = apply(state, TimerDue(run_id="r", seq=PARKED_SEQ), now=now)
        state.absorb(found.run, found.checkpoints, found.withdrawn)
    assert waits == [10, 20, 40, 80, 160, 320, 600, 600, 600]
    by = decision(WaitSignal(seq=1, signal="go"), task_id="r#10")
    found = apply(state, by, now=now)
    assert found.withdrawn == (PARKED_SEQ,)
    assert found.run is not None
    assert found.run.status is RunStatus.SUSPENDED


def test_who_asks_gets_a_turn_at_once_and_a_new_worker_a_moment_later() -> None:
    state = parked()
    guess = Unparked(run_id="r", is_guess=True)
    assert apply(state, guess, now=NOW + 4_999) == NOTHING
    for by, at in ((Unparked(run_id="r"), NOW), (guess, NOW + 5_000)):
        found = apply(state, by, now=at)
        assert found.effects == (SendTurn("r", "r#2"),)
        assert [each.is_pending for each in found.checkpoints] == [False]
    assert moved(suspended(), pending(0), by=Unparked(run_id="r")) == NOTHING


def test_a_parked_run_can_be_cancelled_and_then_ends_with_its_turn() -> None:
    state = parked(CancelRequested(run_id="r"))
    assert state.run.status is RunStatus.CANCELLING
    found = apply(state, parking("r#2"), now=NOW)
    assert found.run is not None
    assert (found.run.status, found.run.error) == (RunStatus.FAILED, BROKEN)
    at_once = parked(CancelRequested(run_id="r", is_final=True))
    assert at_once.run.status is RunStatus.CANCELLED
    assert not at_once.pending
