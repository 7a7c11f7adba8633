"""How log lines look, of structlog and of the standard library."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from durable_worker.cli.logs import configure
from durable_worker.cli.options import LogFormat
from durable_worker.errors import DiffLine
from durable_worker.replay.diff import Mismatch


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_a_console_line_has_time_level_event_and_fields(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure(LogFormat.CONSOLE, debug=False)
    structlog.get_logger().warning("step_failed", step="pay", reason="no money")
    structlog.get_logger().debug("not_told")
    logging.getLogger("theirs").error("it %s", "broke")
    first, second = capsys.readouterr().err.splitlines()
    assert first[8:] == " warning  step_failed  step=pay reason='no money'"
    assert second[8:] == " error    it broke"


def test_a_json_line_leads_with_time_level_and_event(capsys: pytest.CaptureFixture[str]) -> None:
    configure(LogFormat.JSON, debug=True)
    structlog.get_logger().debug("step_failed", step="pay", at={1, 2})
    line = json.loads(capsys.readouterr().err)
    assert list(line) == ["timestamp", "level", "event", "step", "at"]
    assert (line["level"], line["event"], line["at"]) == ("debug", "step_failed", [1, 2])


def test_an_exception_is_told_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    configure(LogFormat.CONSOLE, debug=False)
    try:
        raise ValueError("broken")
    except ValueError:
        structlog.get_logger().exception("crashed")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("error    crashed")
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-1] == "ValueError: broken"


def test_a_hint_has_a_line_of_its_own_below_the_event(capsys: pytest.CaptureFixture[str]) -> None:
    configure(LogFormat.CONSOLE, debug=False)
    structlog.get_logger().warning("no_operator", prefix="durable", hint="Start the operator.")
    first, second = capsys.readouterr().err.splitlines()
    assert first[8:] == " warning  no_operator  prefix=durable"
    assert second == " " * 18 + "Start the operator."
    assert first.index("no_operator") == 18


def test_a_hint_is_a_field_like_others_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure(LogFormat.JSON, debug=False)
    structlog.get_logger().warning("no_operator", hint="Start the operator.")
    assert json.loads(capsys.readouterr().err)["hint"] == "Start the operator."


_DIFF = Mismatch(
    seq=1,
    recorded="step 'a'",
    asked="step 'b'",
    location="app.py:7",
    diff=(DiffLine(1, "step 'a'", "step 'b'", "app.py:7", differs=True),),
)


def test_a_mismatch_is_told_side_by_side_below_the_event(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure(LogFormat.CONSOLE, debug=False)
    structlog.get_logger().warning("turn_decided", mismatch=_DIFF)
    event, header, row = capsys.readouterr().err.splitlines()
    assert event[8:] == " warning  turn_decided"
    assert header.split() == ["SEQ", "HISTORY", "CODE", "LINE"]
    assert row.split() == [">", "1", "step", "'a'", "step", "'b'", "app.py:7"]


def test_a_mismatch_is_an_object_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure(LogFormat.JSON, debug=False)
    structlog.get_logger().warning("turn_decided", mismatch=_DIFF)
    mismatch = json.loads(capsys.readouterr().err)["mismatch"]
    assert (mismatch["seq"], mismatch["diff"][0]["code"]) == (1, "step 'b'")
