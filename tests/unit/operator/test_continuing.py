"""What an operator does with a run that goes on as new."""

from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace

from durable_worker.operator.transitions.apply import apply
from durable_worker.operator.transitions.effects import Deliver, Limits, SendTurn
from durable_worker.protocol.commands import DecisionStatus, RecordStep
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.names import breakpoint_signal, event_signal, webhook_signal
from durable_worker.protocol.runs import RunStatus
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.inputs import (
    CancelRequested,
    ChildEnded,
    DecisionReceived,
    RunInput,
    SignalMatched,
    SignalSent,
    TimerDue,
)
from durable_worker.stores.records import (
    PARKED_SEQ,
    UNORDERED,
    Checkpoint,
    CheckpointStatus,
    Parent,
    RunState,
)
from tests.unit.operator.samples import (
    NOW,
    a_run,
    decision,
    ended,
    moved,
    next_turn,
    pending,
    result,
)

SIGNAL, CHILD, TIMER = HistoryKind.SIGNAL, HistoryKind.CHILD, HistoryKind.TIMER


def marker(seq: int, count: int = 1) -> Checkpoint:
    return Checkpoint(
        run_id="r",
        seq=seq,
        kind=HistoryKind.STEP,
        name="durable:continued",
        status=CheckpointStatus.COMPLETED,
        output=Raw(str(count).encode()),
        enqueued_at=NOW,
        finished_at=NOW,
    )


def goes_on(*records: RecordStep, version: str | None = None, **changes: Any) -> DecisionReceived:
    made = decision(*records, status=DecisionStatus.CONTINUED, ordered=0).decision
    told = replace(made, **{"input": Raw(b'"next"'), **changes})
    return DecisionReceived(run_id="r", decision=told, version=version)


def sent_again(seq: int, *, name: str = "go", at: int = NOW) -> SignalSent:
    return SignalSent(signal_id=f"continued:r:{seq}", name=name, received_at=at)


def test_it_keeps_everything_but_its_input_and_what_it_has_asked_for() -> None:
    before = a_run(
        parent=Parent("p", 3),
        tags=("a",),
        search_attributes=Raw(b'{"x":1}'),
        input=Raw(b"1"),
        ordered=4,
        recoveries=2,
    )
    found = moved(
        before,
        ended(pending(0)),
        pending(1),
        pending(2, TIMER, fires_at=NOW + 5),
        pending(3, CHILD),
        by=goes_on(),
    )
    assert found.run == next_turn(before, input=Raw(b'"next"'), ordered=None)
    assert found.withdrawn == (0, 1, 2, 3)
    assert found.checkpoints == (marker(4),)
    assert found.effects == (SendTurn("r", "r#2"),)


def test_it_begins_behind_every_seq_that_a_worker_has_used() -> None:
    recorded = (RecordStep(seq=5, name="charge"), RecordStep(seq=6, name="ship"))
    found = moved(a_run(), ended(pending(0)), by=goes_on(*recorded))
    assert found.checkpoints == (marker(7),)
    assert moved(a_run(), by=goes_on()).checkpoints == (marker(0),)


def test_it_counts_how_often_it_went_on() -> None:
    found = moved(a_run(), marker(7, 41), ended(pending(8)), by=goes_on())
    assert (found.withdrawn, found.checkpoints) == ((7, 8), (marker(9, 42),))


def test_it_begins_on_the_newest_version_that_is_served() -> None:
    for newest, expected in (("2", "2"), (None, "1")):
        found = moved(a_run(), by=goes_on(version=newest))
        assert found.run is not None
        assert found.run.version == expected


@pytest.mark.parametrize(
    "late",
    [
        result(0),
        result(0, error=Failure(message="no")),
        TimerDue(run_id="r", seq=1),
        SignalMatched(run_id="r", seq=2),
        ChildEnded(run_id="r", seq=3, status=RunStatus.COMPLETED),
        goes_on(),
    ],
)
def test_answers_to_what_is_gone_find_nothing(late: RunInput) -> None:
    operations = [
        pending(0),
        pending(1, TIMER, fires_at=NOW - 1),
        pending(2, SIGNAL),
        pending(3, CHILD),
    ]
    state = RunState(a_run(), operations)
    first = apply(state, goes_on(), now=NOW)
    state.absorb(first.run, first.checkpoints, first.withdrawn)
    found = apply(state, late, now=NOW, limits=Limits())
    assert (found.run, found.checkpoints, found.effects) == (None, (), ())


def test_signals_that_were_not_taken_are_sent_again_in_the_order_in_which_they_came() -> None:
    unread = ended(pending(0, SIGNAL, name="go"), order=2)
    taken = ended(pending(1, SIGNAL, name="go"), order=1)
    unseen = ended(pending(2, SIGNAL, name="go", started_at=NOW - 3), order=5)
    by = goes_on(unread=[0], ordered=4)
    found = moved(a_run(is_dirty=True), unread, taken, unseen, by=by)
    assert found.effects == (
        Deliver(sent_again(0)),
        Deliver(sent_again(2, at=NOW - 3)),
        SendTurn("r", "r#2"),
    )


@pytest.mark.parametrize(
    "name",
    [webhook_signal("r", 0), breakpoint_signal("r", 0), event_signal("event:YQ==:e30=", "r", 0)],
)
def test_signals_that_nobody_can_ask_for_any_more_are_not(name: str) -> None:
    unread = ended(pending(0, SIGNAL, name=name))
    assert moved(a_run(), unread, by=goes_on(unread=[0])).effects == (SendTurn("r", "r#2"),)


def test_the_seqs_of_anything_else_are_not_believed_to_be_signals() -> None:
    unread = [ended(pending(0)), pending(1, SIGNAL, name="go"), pending(PARKED_SEQ, TIMER)]
    found = moved(a_run(), *unread, by=goes_on(unread=[0, 1, 7]))
    assert found.effects == (SendTurn("r", "r#2"),)
    assert found.withdrawn == (-1, 0, 1)


def test_where_nobody_can_tell_which_signals_the_body_knew_it_is_asked_again() -> None:
    before = a_run(is_dirty=True, ordered=UNORDERED)
    signal = ended(pending(0, SIGNAL, name="go"))
    found = moved(before, signal, by=goes_on(ordered=None))
    assert (found.run, found.checkpoints, found.withdrawn) == (next_turn(before), (), ())
    assert found.effects == (SendTurn("r", "r#2"),)
    calm = a_run(ordered=UNORDERED)
    assert moved(calm, signal, by=goes_on(ordered=None)).withdrawn == (0,)


def test_a_cancellation_that_the_body_was_not_told_of_goes_over() -> None:
    before = a_run(status=RunStatus.CANCELLING)
    found = moved(before, pending(0), by=goes_on())
    assert found.run == next_turn(
        before, status=RunStatus.CANCELLING, input=Raw(b'"next"'), ordered=None
    )


@pytest.mark.parametrize("is_recorded_now", [True, False])
def test_a_body_that_was_told_of_the_cancellation_ends(is_recorded_now: bool) -> None:
    told = RecordStep(seq=4, name="durable:cancelled", output=Raw(b"[]"))
    last_words = RecordStep(seq=5, name="event:state", output=Raw(b'"over"'))
    records = [replace(marker(4), name=told.name, output=told.output)]
    records.append(replace(marker(5), name=last_words.name, output=last_words.output))
    by = goes_on(told, last_words) if is_recorded_now else goes_on(last_words)
    known = [] if is_recorded_now else records[:1]
    found = moved(a_run(status=RunStatus.CANCELLING), *known, by=by)
    assert found.run is not None
    assert (found.run.status, found.withdrawn) == (RunStatus.CANCELLED, ())
    assert found.checkpoints == (*records[len(known) :],)


def test_a_cancellation_reaches_the_execution_that_follows() -> None:
    state = RunState(a_run(), [pending(0)])
    for by in (goes_on(), CancelRequested(run_id="r")):
        found = apply(state, by, now=NOW)
        state.absorb(found.run, found.checkpoints, found.withdrawn)
    assert (state.run.status, state.run.task_id) == (RunStatus.CANCELLING, "r#3")
    assert state.checkpoints == {1: marker(1)}
