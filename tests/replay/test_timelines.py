"""A timeline, as either operator tells it, becomes the history that the next turn would hold.

`recorded/nestjs-*.json` are answers of a NestJS operator to `getRunDetail`.
"""

from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET, Raw, json

from durable_worker.errors import ProtocolError
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.payload import plain_json
from durable_worker.protocol.runs import RunDetail, RunRecord, RunStatus, TimelineEntry
from durable_worker.protocol.tasks import HistoryEvent, HistoryKind, WorkflowTask
from durable_worker.replay.documents import read_recorded_run
from durable_worker.replay.timeline import RecordedRun, RunEnd, recorded_run
from durable_worker.replay.witness import Asked

RECORDED = Path(__file__).parent / "recorded"
NOON = "2026-03-01T12:00:00.000Z"
NOON_MS = 1_772_366_400_000


def entry(seq: int, kind: str, name: str, status: str = "completed", **more: Any) -> TimelineEntry:
    return TimelineEntry(
        run_id="run-1",
        seq=seq,
        name=name,
        kind=kind,
        step_id=f"run-1:{seq}",
        status=status,
        attempts=1,
        enqueued_at=NOON,
        **more,
    )


def detail(*entries: TimelineEntry, status: RunStatus = RunStatus.SUSPENDED) -> RunDetail:
    run = RunRecord(
        id="run-1",
        workflow="flow",
        workflow_version="7",
        status=status,
        input=Raw(b'"in"'),
        output=Raw(b'"out"'),
        created_at=NOON,
        updated_at=NOON,
    )
    return RunDetail(run=run, timeline=list(entries), children=[])


def told(recorded: RecordedRun) -> list[tuple[int, str, str | None, Any]]:
    return [(e.seq, e.kind.value, e.name, plain_json(e.output)) for e in recorded.task.history]


def nestjs(name: str) -> RecordedRun:
    return read_recorded_run((RECORDED / f"nestjs-{name}.json").read_bytes())


def test_resolved_entries_of_our_operator_are_history_and_open_ones_are_waited_for() -> None:
    failure = Failure(message="no", code="nope")
    recorded = recorded_run(
        detail(
            entry(4, "timer", "sleep:4", "cancelled"),
            entry(0, "call", "charge", output=Raw(b"5")),
            entry(1, "step", "now#1", output=Raw(b"9")),
            entry(2, "call", "ship", "failed", error=failure),
            entry(3, "signal", "go", "pending"),
            entry(5, "child", "parcel", output=Raw(b"6")),
        )
    )
    assert recorded.task.history == [
        HistoryEvent(seq=0, kind=HistoryKind.CALL, name="charge", output=Raw(b"5")),
        HistoryEvent(seq=1, kind=HistoryKind.STEP, name="now#1", output=Raw(b"9")),
        HistoryEvent(seq=2, kind=HistoryKind.CALL, name="ship", error=failure),
        HistoryEvent(seq=5, kind=HistoryKind.CHILD, name="parcel", output=Raw(b"6")),
    ]
    assert recorded.waiting == {
        3: Asked(HistoryKind.SIGNAL, "go"),
        4: Asked(HistoryKind.TIMER, "sleep:4"),
    }
    task = recorded.task
    assert (task.workflow, task.workflow_version, task.input) == ("flow", "7", Raw(b'"in"'))
    assert task.capabilities == ["call-retry", "durable-timers"]


def test_an_earlier_failure_of_a_step_that_completed_is_no_failure() -> None:
    entries = entry(0, "call", "charge", error=Failure(message="first attempt"))
    assert recorded_run(detail(entries)).task.history[0].error is None


@pytest.mark.parametrize(
    ("status", "end"),
    [
        (RunStatus.COMPLETED, RunEnd(status=RunStatus.COMPLETED, output=Raw(b'"out"'))),
        (RunStatus.FAILED, RunEnd(status=RunStatus.FAILED, output=Raw(b'"out"'))),
        (RunStatus.CANCELLED, None),
        (RunStatus.DEAD, None),
        (RunStatus.SUSPENDED, None),
    ],
)
def test_the_end_counts_where_the_body_has_decided_it(
    status: RunStatus, end: RunEnd | None
) -> None:
    assert recorded_run(detail(status=status)).end == end


def test_kinds_of_a_nestjs_operator_become_those_of_history() -> None:
    recorded = nestjs("mixed")
    assert told(recorded) == [
        (0, "call", "py.work", 0),
        (1, "call", "py.work", 1),
        (2, "call", "py.work", 2),
        (3, "call", "py.work", 3),
        (4, "timer", "sleep:4", None),
        (5, "call", "ts.work", 4),
        (6, "child", None, 5),
    ]
    assert recorded.waiting == {}
    assert recorded.task.capabilities is None
    assert recorded.end is not None
    assert plain_json(recorded.end.output) == [0, 1, 2, 3, 4, 5]


def test_a_failed_child_of_a_nestjs_operator_is_a_failure() -> None:
    (event,) = nestjs("catches-child").task.history
    assert event == HistoryEvent(
        seq=0, kind=HistoryKind.CHILD, error=Failure(message="no such customer: the-input")
    )


def test_a_wait_that_a_nestjs_operator_does_not_tell_of_is_left_out() -> None:
    assert [each[:3] for each in told(nestjs("patient"))] == [
        (1, "timer", "sleep:1"),
        (2, "step", "durable:deadlines"),
        (3, "step", "durable:delivered"),
    ]


@pytest.mark.parametrize(("due", "has_fired"), [(NOON_MS, True), (NOON_MS + 1, False)])
def test_a_pending_timer_of_a_nestjs_operator_has_fired_once_it_was_due(
    due: int, has_fired: bool
) -> None:
    recorded = recorded_run(detail(entry(0, "sleep", "sleep:0", "pending", wake_at=due)))
    assert bool(recorded.task.history) is has_fired
    assert bool(recorded.waiting) is not has_fired


def test_signals_of_a_nestjs_operator_lose_the_prefix_that_it_gives_them() -> None:
    entries = [entry(0, "signal", "signal:go", output=Raw(b"1"), started_at=NOON)]
    recorded = recorded_run(detail(*entries))
    assert told(recorded) == [(0, "signal", "go", 1)]
    assert recorded.task.capabilities is None


def test_a_signal_of_ours_keeps_its_name_whatever_it_begins_with() -> None:
    recorded = recorded_run(detail(entry(0, "signal", "signal:go", output=Raw(b"1"))))
    assert told(recorded) == [(0, "signal", "signal:go", 1)]
    assert recorded.task.capabilities is not None


def test_what_runs_right_now_and_what_runs_beside_the_body_is_left_out() -> None:
    running = entry(0, "local", "pack", "running")
    compensation = entry(-1, "remote", "compensate:charge", "pending")
    recorded = recorded_run(detail(running, compensation))
    assert (recorded.task.history, recorded.waiting) == ([], {})


def test_a_timeline_of_neither_operator_is_refused() -> None:
    with pytest.raises(ProtocolError, match=r"'run-1'.*'teleport'"):
        recorded_run(detail(entry(0, "teleport", "x")))


def test_a_turn_is_a_document_too() -> None:
    task = WorkflowTask(
        task_id="t",
        run_id="run-1",
        workflow="flow",
        workflow_version="1",
        history=[HistoryEvent(seq=0, kind=HistoryKind.CALL, name="charge")],
        group="flow",
        attempt=1,
    )
    recorded = read_recorded_run(json.encode(task))
    assert recorded == RecordedRun(task=task)


def test_a_detail_is_a_document() -> None:
    given = detail(entry(0, "call", "charge"))
    assert read_recorded_run(json.encode(given)) == recorded_run(given)


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"timeline": []}', b'{"history": 1}', b"\xff"]
)
def test_what_is_no_history_is_refused(text: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_recorded_run(text)


def test_an_output_that_is_absent_stays_absent() -> None:
    assert recorded_run(detail(entry(0, "call", "x"))).task.history[0].output is UNSET
