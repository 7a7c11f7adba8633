"""The auditor can fail: evidence of each kind of violation, made by hand, is reported."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from durable_worker.stores.queries import load_script
from tests.chaos.audit.evidence import (
    CheckpointRow,
    Entry,
    Evidence,
    Expected,
    FaultNote,
    Life,
    Report,
    RunRow,
)
from tests.chaos.audit.rules import RULES, audit
from tests.chaos.fleet import ROOT

START = Entry("start", "r", "r:0", 1, "chaos.work", 10, 1.0)
EFFECT = Entry("effect", "r", "r:0", 1, "chaos.work", 10, 2.0, token="t0", value=5)
UNDO_1 = Entry("effect", "s", "s:2", 1, "chaos.undo", 10, 3.0, token="u1", value=7)
UNDO_0 = Entry("effect", "s", "s:3", 1, "chaos.undo", 10, 4.0, token="u0", value=6)
AGAIN = replace(START, pid=11, at=5.0)
KILLED = FaultNote("kill", ["worker-1"], [10], 3.0, 3.0)

SOUND = Evidence(
    journal=[START, EFFECT, UNDO_1, UNDO_0],
    expected=[
        Expected("r", "chaos.one", "completed", [5], effects={"chaos.work": 1}),
        Expected("s", "chaos.saga", "failed", code="out", effects={"chaos.undo": 2}, undone=[7, 6]),
    ],
    lives=[
        Life("worker-1", "worker", 10, 0.0, 9.0, 0, told=True),
        Life("operator-1", "operator", 20, 0.0, 9.0, 0, told=True),
    ],
    reports=[Report(10, tasks=[]), Report(20, tasks=[])],
    runs=[
        RunRow("r", "completed", {"values": [5], "tokens": ["t0"], "note": ""}),
        RunRow("s", "failed", error={"code": "out", "message": "sold out"}),
    ],
    checkpoints=[
        CheckpointRow("r", 0, "call", "chaos.work", "completed", {"value": 5, "token": "t0"}),
        CheckpointRow("s", 2, "call", "chaos.undo", "completed", {"value": 7, "token": "u1"}),
        CheckpointRow("s", 3, "call", "chaos.undo", "completed", {"value": 6, "token": "u0"}),
    ],
    left_in_tables={"outbox": 0, "inbox": 0, "lease": 0},
    queues={"chaos-results": (0, 0)},
)


def run_row(run: RunRow) -> Evidence:
    """The sound evidence with another row of the run `r`."""
    return replace(SOUND, runs=[run, SOUND.runs[1]])


def life(changed: Life, *faults: FaultNote) -> Evidence:
    return replace(SOUND, lives=[*SOUND.lives, changed], faults=faults)


RECEIPT = {"values": [5], "tokens": ["t0"], "note": ""}

VIOLATIONS = {
    "a run is lost": (
        replace(SOUND, runs=SOUND.runs[1:], journal=[UNDO_1, UNDO_0], checkpoints=[]),
        "every run has ended: run r was asked for and is not in the database",
    ),
    "a run hangs": (
        run_row(RunRow("r", "suspended")),
        "every run has ended: run r has not ended: it is suspended",
    ),
    "a child hangs": (
        replace(SOUND, runs=[*SOUND.runs, RunRow("r.child.1", "running")]),
        "every run has ended: run r.child.1 has not ended: it is running",
    ),
    "a run fails": (
        run_row(RunRow("r", "failed", error={"code": "x"})),
        "every run ended as it should: run r is failed instead of completed: {'code': 'x'}",
    ),
    "a run returns something else": (
        run_row(RunRow("r", "completed", {**RECEIPT, "values": [6]})),
        "every run ended as it should: run r returned [6], not [5]",
    ),
    "a run goes a way that does not exist": (
        run_row(RunRow("r", "completed", {**RECEIPT, "note": "lost"})),
        "every run ended as it should: run r notes 'lost', not one of ('',)",
    ),
    "a run fails of something else": (
        replace(SOUND, runs=[SOUND.runs[0], RunRow("s", "failed", error={"code": "poison"})]),
        "every run ended as it should: run s failed with {'code': 'poison'}, not with code 'out'",
    ),
    "a result is made up": (
        replace(SOUND, journal=[START, replace(EFFECT, token="other"), UNDO_1, UNDO_0]),
        "every effect is recorded once: step r:0 has a result that no execution of it returned",
    ),
    "a result lands at two steps": (
        replace(
            SOUND,
            checkpoints=[*SOUND.checkpoints, replace(SOUND.checkpoints[0], seq=1)],
            journal=[*SOUND.journal, replace(EFFECT, step="r:1", name="chaos.work")],
            expected=[replace(SOUND.expected[0], effects={"chaos.work": 2}), SOUND.expected[1]],
        ),
        "every effect is recorded once: run r has recorded the effect t0 2 times",
    ),
    "a run returns what was not recorded": (
        run_row(RunRow("r", "completed", {**RECEIPT, "tokens": ["t9"]})),
        "every effect is recorded once: run r returned the effect t9, which it has not recorded",
    ),
    "a step is left out": (
        replace(
            SOUND,
            expected=[replace(SOUND.expected[0], effects={"chaos.work": 2}), SOUND.expected[1]],
        ),
        "every effect took place: run r took the effects {'chaos.work': 1}, not {'chaos.work': 2}",
    ),
    "a step ran under two ids": (
        replace(SOUND, journal=[*SOUND.journal, replace(EFFECT, step="r:9", token="t9")]),
        "every effect took place: run r took the effects {'chaos.work': 2}, not {'chaos.work': 1}",
    ),
    "a run that nobody asked for": (
        replace(SOUND, journal=[*SOUND.journal, replace(EFFECT, run="x", step="x:0", token="x")]),
        "every effect took place: run x took effects and was never asked for",
    ),
    "undone in the wrong order": (
        replace(SOUND, journal=[START, EFFECT, replace(UNDO_1, at=4.5), UNDO_0]),
        "what was done is undone in reverse: run s undid [6, 7], not [7, 6]",
    ),
    "a step runs again for no reason": (
        replace(SOUND, journal=[*SOUND.journal, AGAIN]),
        "every repetition has a cause: attempt 1 of step r:0 ran in process 10 at 1.000 and again "
        "in 11 at 5.000, and no fault hit in between",
    ),
    "a step runs again after a fault of somebody else": (
        replace(
            SOUND,
            journal=[*SOUND.journal, AGAIN],
            faults=[FaultNote("stop", ["worker-2"], [12], 3.0, 4.0)],
        ),
        "every repetition has a cause: attempt 1 of step r:0 ran in process 10 at 1.000 and again "
        "in 11 at 5.000, and no fault hit in between",
    ),
    "a step runs again after a fault before it": (
        replace(
            SOUND,
            journal=[*SOUND.journal, AGAIN],
            faults=[FaultNote("cut", ["worker-1"], [10], 0.5, 0.5)],
        ),
        "every repetition has a cause: attempt 1 of step r:0 ran in process 10 at 1.000 and again "
        "in 11 at 5.000, and no fault hit in between",
    ),
    "a step runs long after its run is over": (
        replace(
            SOUND,
            journal=[*SOUND.journal, replace(START, step="r:7", at=99.0)],
        ),
        "nothing runs for a run that is over: step r:7 started 97.0 s after its run was over",
    ),
    "a message is left": (
        replace(SOUND, queues={"chaos-results": (2, 1)}),
        "every queue is empty: queue chaos-results holds 2 messages, and 1 that nobody "
        "acknowledged",
    ),
    "the broker was not asked": (
        replace(SOUND, queues={}),
        "every queue is empty: the broker listed no queue at all",
    ),
    "work is left in the outbox": (
        replace(SOUND, left_in_tables={"outbox": 3}),
        "nothing is left to do: table outbox still holds 3 rows",
    ),
    "a connection is left": (
        replace(SOUND, connections=["durable-worker (publish)"]),
        "no connection is left: connection durable-worker (publish) is open although everybody "
        "has ended",
    ),
    "a stop that fails": (
        replace(SOUND, lives=[replace(SOUND.lives[0], code=1), SOUND.lives[1]]),
        "every process ended when told: worker-1 (10) was told to stop and ended with 1",
    ),
    "a stop that takes for ever": (
        replace(SOUND, lives=[replace(SOUND.lives[0], code=-9), SOUND.lives[1]]),
        "every process ended when told: worker-1 (10) was told to stop and ended with -9",
    ),
    "a worker that crashes": (
        replace(SOUND, lives=[replace(SOUND.lives[0], code=1, told=False), SOUND.lives[1]]),
        "no process ended by itself: worker-1 (10) ended by itself with 1",
    ),
    "a process that somebody else kills": (
        life(
            Life("worker-2", "worker", 12, 0.0, 9.0, -9, told=False),
            FaultNote("kill", ["worker-1"], [10], 9.0, 9.0),
        ),
        "no process ended by itself: worker-2 (12) ended by itself with -9",
    ),
    "an operator that gives up long after its disk was full": (
        replace(
            SOUND,
            lives=[SOUND.lives[0], replace(SOUND.lives[1], ended=99.0, code=1, told=False)],
            faults=[FaultNote("disk full", ["operator-1"], [20], 3.0, 4.0)],
        ),
        "no process ended by itself: operator-1 (20) ended by itself with 1",
    ),
    "a task that leaks": (
        replace(SOUND, reports=[Report(10, tasks=["<Task>"]), Report(20, tasks=[])]),
        "nothing leaks: worker-1 (10) left the task <Task>",
    ),
    "a thread that leaks": (
        replace(SOUND, reports=[Report(10, ["writer"], tasks=[]), Report(20, tasks=[])]),
        "nothing leaks: worker-1 (10) left the thread writer",
    ),
    "a process that ends without a word": (
        replace(SOUND, reports=[Report(20, tasks=[])]),
        "nothing leaks: worker-1 (10) ended without a report",
    ),
    "an exception that nobody handled": (
        replace(SOUND, logs={"worker-1": "fine\nTask exception was never retrieved\nfine"}),
        "nobody was surprised: worker-1 says: Task exception was never retrieved\nfine",
    ),
}


@pytest.mark.parametrize(("evidence", "complaint"), VIOLATIONS.values(), ids=VIOLATIONS)
def test_a_violation_is_reported(evidence: Evidence, complaint: str) -> None:
    assert complaint in audit(evidence)


def test_sound_evidence_passes() -> None:
    assert audit(SOUND) == []


def test_every_rule_is_broken_by_a_violation() -> None:
    broken = {complaint.partition(":")[0] for _, complaint in VIOLATIONS.values()}
    assert broken == {rule.__name__.replace("_", " ") for rule in RULES}


@pytest.mark.parametrize(
    "fault",
    [
        KILLED,
        FaultNote("broker killed", ["broker"], [], 0.2, 0.9),
        FaultNote("kill", ["operator-1"], [20], 0.5, 0.5),
        FaultNote("repeated", ["broker"], [], 99.0, 99.5, messages=["r:0:1"]),
    ],
    ids=lambda fault: fault.kind,
)
def test_a_step_may_run_again_if_a_fault_hit_what_carried_it(fault: FaultNote) -> None:
    lives = [replace(SOUND.lives[0], code=-9, told=False), SOUND.lives[1]]
    killed = lives if fault is KILLED else SOUND.lives
    evidence = replace(SOUND, journal=[*SOUND.journal, AGAIN], faults=[fault], lives=killed)
    reports = SOUND.reports[1:] if fault is KILLED else SOUND.reports
    assert audit(replace(evidence, reports=reports)) == []


def test_an_operator_may_give_up_when_another_holds_the_lease() -> None:
    lives = [SOUND.lives[0], replace(SOUND.lives[1], code=1, told=False)]
    fault = FaultNote("clock", ["operator-1"], [20], 3.0, 4.0)
    assert audit(replace(SOUND, lives=lives, faults=[fault])) == []


def test_the_auditor_shares_no_code_with_the_engine() -> None:
    look = (
        "import sys; import tests.chaos.audit.rules; "
        "print([name for name in sys.modules if name.startswith('durable_worker')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_evidence_is_read_from_what_others_wrote(tmp_path: Path) -> None:
    """A real database and real files: `play` makes them all, this holds their shapes alone."""
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "10.json").write_text('{"pid": 10, "tasks": [], "threads": ["x"]}')
    (tmp_path / "journal").write_text(
        '{"what": "start", "run": "r", "step": "r:0", "attempt": 1, "name": "n", "pid": 1, '
        '"at": 0.5, "is_local": true}\n'
    )
    (tmp_path / "worker-1.log").write_text("hello")
    database = tmp_path / "operator.db"
    with closing(sqlite3.connect(database)) as writer:
        writer.executescript(load_script("sqlite", "schema"))
        writer.execute("INSERT INTO outbox VALUES ('k', 'r', 0, 1)")
        writer.execute(
            "INSERT INTO checkpoints (run_id, seq, kind, name, status, output, attempt, "
            "enqueued_at, recoveries) VALUES ('r', 0, 'call', 'n', 'completed', ?, 1, 0, 0)",
            (b'{"token": "t"}',),
        )
        writer.commit()
    found = Evidence.gather(tmp_path, database=database, queues={"q": (0, 1)}, connections=["c"])
    assert found == Evidence(
        journal=[Entry("start", "r", "r:0", 1, "n", 1, 0.5, is_local=True)],
        expected=[],
        faults=[],
        lives=[],
        reports=[Report(10, ["x"], [])],
        runs=[],
        checkpoints=[CheckpointRow("r", 0, "call", "n", "completed", {"token": "t"})],
        left_in_tables={"outbox": 1, "inbox": 0, "lease": 0},
        queues={"q": (0, 1)},
        connections=["c"],
        logs={"worker-1": "hello"},
    )
