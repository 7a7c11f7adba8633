"""What is shown to a person."""

import io
from datetime import UTC, datetime, timedelta

import pytest
from msgspec import Raw

from durable_worker.cli.documents import json_argument
from durable_worker.cli.durations import in_words
from durable_worker.cli.page import Line, Table, Text, plain_text, show
from durable_worker.cli.render import run_page, run_table
from durable_worker.errors import UsageError
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.runs import RunDetail, RunRecord, RunStatus, TimelineEntry

NOW = datetime(2026, 1, 2, 3, 4, 30, tzinfo=UTC)
AT = "2026-01-02T03:04:05.000Z"
LATER = "2026-01-02T03:04:06.500Z"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3, "0 ms"),
        (0, "0 ms"),
        (0.0124, "12 ms"),
        (0.9996, "1.0 s"),
        (3.44, "3.4 s"),
        (59.97, "1 min"),
        (310, "5 min 10 s"),
        (7200, "2 h"),
        (86400 * 3 - 1, "2 d 23 h"),
        (86400 * 3 + 4 * 3600, "3 d 4 h"),
    ],
)
def test_a_duration_is_told_in_two_parts_at_most(seconds: float, words: str) -> None:
    assert in_words(timedelta(seconds=seconds)) == words


def test_columns_are_aligned_and_lines_among_them_are_not_part_of_it() -> None:
    table = Table(["A", "LONGER"], [["1", Text("x", "red")], Line(["a note"], 4), ["100", "y"]])
    assert plain_text([table]) == "A    LONGER\n1    x\n    a note\n100  y"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_show_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal, pipe = _Terminal(), io.StringIO()
    show([Line([Text("gone", "red")])], terminal)
    show([Line([Text("gone", "red")])], pipe)
    assert terminal.getvalue() == "\x1b[31mgone\x1b[0m\n"
    assert pipe.getvalue() == "gone\n"


def _record(status: RunStatus, **more: object) -> RunRecord:
    fields = {"id": "r1", "workflow": "pay", "workflow_version": "2", **more}
    return RunRecord(status=status, created_at=AT, updated_at=LATER, **fields)  # type: ignore[arg-type]


def test_runs_are_listed_with_how_long_they_took_or_have_taken() -> None:
    records = [_record(RunStatus.COMPLETED), _record(RunStatus.SUSPENDED)]
    lines = plain_text(run_table(records, now=NOW)).splitlines()
    assert [line.split()[-2:] for line in lines] == [
        ["STARTED", "LASTED"],
        ["1.5", "s"],
        ["25.0", "s"],
    ]


def test_no_runs_are_told_as_such() -> None:
    assert plain_text(run_table([], now=NOW)) == "no runs"


def _entry(seq: int, name: str, kind: str, status: str, **more: object) -> TimelineEntry:
    return TimelineEntry(
        run_id="r1",
        seq=seq,
        name=name,
        kind=kind,
        step_id=f"r1:{seq}",
        status=status,
        attempts=more.pop("attempts", 1),  # type: ignore[arg-type]
        enqueued_at=AT,
        **more,  # type: ignore[arg-type]
    )


def test_a_timeline_tells_attempts_durations_and_reasons_and_hides_bookkeeping() -> None:
    soon = int((NOW + timedelta(seconds=5)).timestamp() * 1000)
    failure = Failure(message="no money", code="declined")
    detail = RunDetail(
        run=_record(RunStatus.FAILED, error=failure, input=Raw(b'{"a":1}')),
        timeline=[
            _entry(0, "charge", "call", "failed", attempts=3, finished_at=LATER, error=failure),
            _entry(1, "durable:delivered", "step", "completed", finished_at=AT),
            _entry(2, "sleep:2", "timer", "pending", wake_at=soon),
            _entry(3, "retry", "call", "pending", attempts=2, wake_at=soon),
        ],
        children=[],
    )
    lines = plain_text(run_page(detail, now=NOW)).splitlines()
    assert lines[0:3] == ["run       r1", "workflow  pay 2", "status    failed after 1.5 s"]
    assert lines[4:] == [
        'input     {"a":1}',
        "error     no money [declined]",
        "",
        "SEQ  KIND   NAME     STATUS   ATTEMPTS  DURATION",
        "0    step   charge   failed   3         1.5 s",
        "        no money [declined]",
        "2    timer  sleep:2  pending            fires in 5.0 s",
        "3    step   retry    pending  2         again in 5.0 s",
    ]


def test_json_of_the_command_line_passes_unchanged() -> None:
    assert json_argument("--input", ' {"n": 1.10} ') == Raw(b' {"n": 1.10} ')
    assert json_argument("--input", None) is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expecting value at line 1, column 1, where it ends"),
        ('{"a" 1}', "expecting ':' delimiter at line 1, column 6: ...'{\"a\" 1'"),
        ("NaN", "invalid character"),
        ("[" * 100_000, "recursion"),
        ("\ud800", "is not UTF-8 text"),
    ],
)
def test_what_is_not_json_is_refused_with_the_place(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=r"^--input is not ") as caught:
        json_argument("--input", text)
    assert reason in str(caught.value)
