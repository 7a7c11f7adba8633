"""`check` and `replay`: changed code against runs that are open, and against recorded ones."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic

import pytest

from tests.integration.cli.programs import PATIENCE, Program

BEFORE = """
from durable_worker import Worker, WorkflowContext

worker = Worker()


@worker.step("charge")
async def charge(order: str) -> int:
    return 1


@worker.step("pack")
async def pack(order: str) -> int:
    return 2


@worker.workflow("order", version="{version}")
async def order(ctx: WorkflowContext, name: str) -> str:
{body}
    return name
"""

SHORT = """

@worker.workflow("short")
async def short(ctx: WorkflowContext, name: str) -> str:
    await ctx.step("charge", name)
    return name
"""

MADE = ["charge", "pack", "ship"]
"""Nobody serves `ship`: runs wait for it."""


def code(*steps: str, version: str = "1", also: str = "") -> str:
    lines = [f'    await ctx.step("{each}", name)' for each in steps]
    return BEFORE.format(version=version, body="\n".join([*lines, also]))


COMPATIBLE = {
    "the same": code(*MADE),
    "a step after the open one": code(*MADE, "thank"),
    "another step after the open one": code("charge", "pack", "ship", also="    ctx.now()"),
    "a patch before the open step": code(
        "charge", "pack", also='    if ctx.patched("x"):\n        ctx.now()\n'
        '    await ctx.step("ship", name)',
    ),
}  # fmt: skip

BREAKING = {
    "a step renamed": (code("pay", "pack", "ship"), 0, "step 'charge' -> step 'pay'"),
    "the order swapped": (code("pack", "charge", "ship"), 0, "step 'charge' -> step 'pack'"),
    "a step before the open one": (
        code("charge", "pack", "audit", "ship"), 2, "step 'ship' (open) -> step 'audit'",
    ),
    "the open step removed": (
        code("charge", "pack"), 2,
        "step 'ship' (open) -> nothing more: the body has ended",
    ),
    "a step removed": (code("charge", "ship"), 1, "step 'pack' -> step 'ship'"),
}  # fmt: skip


def wait_for_ship(program: Program, *run_ids: str) -> None:
    """Until the runs wait for the step that nobody serves."""
    until = monotonic() + PATIENCE
    for run_id in run_ids:
        while "ship" not in program.out("show", run_id):
            assert monotonic() < until, program.out("show", run_id)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a database in which two runs are open, one has ended, and nothing serves."""
    directory = tmp_path_factory.mktemp("checks")
    program = Program(directory)
    program.write("app.py", code(*MADE) + SHORT)
    with program.serving("dev", "app:worker", "--no-reload") as serving:
        serving.wait_for("lease_acquired")
        for run_id in ("o-1", "o-2"):
            program.out("start", "order", "--input", '"lamp"', "--id", run_id)
        program.out("start", "short", "--input", '"lamp"', "--id", "s-1", "--wait")
        wait_for_ship(program, "o-1", "o-2")
    return directory


@pytest.fixture
def program(place: Path) -> Program:
    return Program(place)


@pytest.mark.parametrize("change", COMPATIBLE)
def test_a_change_that_open_runs_can_live_with_passes(program: Program, change: str) -> None:
    program.write("new.py", COMPATIBLE[change])
    assert program.out("check", "new:worker") == "2 open runs checked, 2 fit, none would break"


@pytest.mark.parametrize("change", BREAKING)
def test_a_change_that_would_break_open_runs_is_told_with_its_line(
    program: Program, change: str
) -> None:
    text, seq, what = BREAKING[change]
    program.write("new.py", text)
    done = program.run("check", "new:worker", "--operator", "sqlite:///.durable/dev.db")
    assert (done.returncode, done.stderr) == (1, "")
    header, first, second, *rest = done.stdout.splitlines()
    assert header.split() == ["RUN", "WORKFLOW", "SEQ", "WHAT", "WOULD", "BREAK", "LINE"]
    for run_id, line in (("o-1", first), ("o-2", second)):
        row = " ".join(line.split())
        assert row.startswith(f"{run_id} order 1 {seq} {what} new.py:")
    assert rest[-1] == "2 open runs checked, 0 fit, 2 would break"
    shown = [line for line in rest if line.lstrip().startswith(f">  {seq} ")]
    assert len(shown) == 1, "one diff for runs that break alike"


def test_a_version_that_was_dropped_would_break_its_open_runs(program: Program) -> None:
    program.write("new.py", code(*MADE, version="2"))
    done = program.run("check", "new:worker")
    assert done.returncode == 1
    assert "version '1' of workflow 'order' is not registered on this worker, only 2" in done.stdout


def test_runs_of_workflows_that_are_served_elsewhere_are_skipped(program: Program) -> None:
    program.write("new.py", code("x").replace('"order"', '"another"'))
    out = program.out("check", "new:worker")
    assert "skipped  2  order  not registered here" in out
    assert out.endswith("2 skipped, none would break (this code has 'another')")


def test_what_would_break_is_told_as_json_for_programs(program: Program) -> None:
    program.write("new.py", BREAKING["a step renamed"][0])
    done = program.run("check", "new:worker", "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert (report["checked"], report["ok"], report["skipped"]) == (2, 0, [])
    first, second = report["broken"]
    assert (first["runId"], first["workflow"], first["version"]) == ("o-1", "order", "1")
    mismatch = first["mismatch"]
    location = f"{program.directory / 'new.py'}:{line_of('new.py', 'pay', program)}"
    assert mismatch["location"] == location
    assert (mismatch["seq"], mismatch["asked"]) == (0, "step 'pay'")
    assert [each["seq"] for each in mismatch["diff"]] == [0, 1, 2]
    assert "diff" not in second["mismatch"] or second["mismatch"]["diff"] == []


def line_of(name: str, text: str, program: Program) -> int:
    lines = (program.directory / name).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if f'"{text}"' in line)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--operator", "x.db", "--db", "y.db"], 2, "leave out --db and --broker"),
        (["--operator", "mysql://x"], 2, "it names no database. Expected mysql://"),
        (["--operator", "none.db"], 2, "there is no database none.db"),
        (["--operator", "amqp://guest:secret@127.0.0.1:1/"], 1, "gave up after 5 s"),
    ],
)
def test_a_place_without_runs_is_an_error(
    program: Program, words: list[str], status: int, said: str
) -> None:
    program.write("new.py", code(*MADE))
    done = program.run("check", "new:worker", *words)
    assert (done.returncode, done.stdout) == (status, "")
    assert said in done.stderr
    assert "secret" not in done.stderr


def test_recorded_runs_are_replayed_from_files_directories_and_standard_input(
    program: Program,
) -> None:
    recorded = program.directory / "recorded"
    recorded.mkdir(exist_ok=True)
    for run_id in ("o-1", "s-1"):
        (recorded / f"{run_id}.json").write_text(program.out("show", run_id, "--json"))
    one = "recorded/o-1.json"
    assert program.out("replay", "app:worker", one) == (
        f"ok  {one}  o-1  order 1\n1 replayed, all fit"
    )
    assert program.out("replay", "app:worker", "recorded").endswith("2 replayed, all fit")

    program.write("new.py", BREAKING["a step renamed"][0])
    done = program.run("replay", "new:worker", "recorded")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["mismatch", one, "o-1", "order", "1"]
    assert any(line.split()[:3] == [">", "0", "step"] for line in lines)
    assert "workflow 'short' is not registered on this worker, which has 'order'" in done.stdout
    assert lines[-1] == "2 replayed, 2 no longer fit"

    detail = program.out("show", "o-1", "--json")
    done = program.run("replay", "new:worker", "-", "--json", given=detail)
    (told,) = json.loads(done.stdout)
    assert (told["file"], told["outcome"]) == ("standard input", "mismatch")
    assert told["mismatch"]["asked"] == "step 'pay'"


def test_another_output_than_a_run_had_counts_unless_it_is_ignored(program: Program) -> None:
    (program.directory / "short.json").write_text(program.out("show", "s-1", "--json"))
    text = (program.directory / "app.py").read_text().replace("return name", 'return "other"')
    program.write("new.py", text)
    done = program.run("replay", "new:worker", "short.json")
    assert done.returncode == 1
    assert 'the end: completed with "lamp"' in done.stdout
    program.out("replay", "new:worker", "short.json", "--ignore-output")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{}", "bad.json is not a history: it holds neither a timeline"),
        ("nonsense", "bad.json is not a history: "),
        (None, "bad.json cannot be read: "),
    ],
)
def test_a_file_that_holds_no_history_is_a_mistake(
    program: Program, content: str | None, said: str
) -> None:
    bad = program.directory / "bad.json"
    bad.unlink(missing_ok=True)
    if content is not None:
        bad.write_text(content)
    done = program.run("replay", "app:worker", "bad.json")
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


# A worker whose code has changed


def test_a_mismatch_is_told_by_log_and_show_and_the_run_goes_on_with_mended_code(
    tmp_path: Path,
) -> None:
    program = Program(tmp_path)
    sound = code("charge", also='    await ctx.wait_signal("go")')
    program.write("app.py", sound)
    with program.serving("dev", "app:worker", "--no-reload") as serving:
        serving.wait_for("lease_acquired")
        program.out("start", "order", "--input", '"lamp"', "--id", "o-1")
        until = monotonic() + PATIENCE
        while "go" not in program.out("show", "o-1"):
            assert monotonic() < until
    program.write("app.py", code("pay", also='    await ctx.wait_signal("go")'))
    with program.serving("dev", "app:worker", "--no-reload") as serving:
        serving.wait_for("lease_acquired")
        program.out("signal", "go")
        serving.wait_for("turn_decided")
        assert serving.wait_for("HISTORY").split() == ["SEQ", "HISTORY", "CODE", "LINE"]
        line = f"app.py:{line_of('app.py', 'pay', program)}"
        expected = [">", "0", "step", "'charge'", "step", "'pay'", line]
        assert serving.wait_for(">  0").split() == expected
        until = monotonic() + PATIENCE
        while "blocked" not in (shown := program.out("show", "o-1")):
            assert monotonic() < until
    assert expected in [line.split() for line in shown.splitlines()]
    assert "blocked" in program.out("runs")
    program.write("app.py", sound)
    with program.serving("dev", "app:worker", "--no-reload") as serving:
        serving.wait_for("lease_acquired")
        until = monotonic() + PATIENCE
        while "completed" not in program.out("runs"):
            assert monotonic() < until, program.out("show", "o-1")


# Over the broker


@contextmanager
def served(program: Program) -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(program.serving("operator", "--database", "op.db"))
        stack.enter_context(program.serving("run", "app:worker"))
        yield


def test_open_runs_behind_a_broker_are_checked(on_broker: Program, broker_url: str) -> None:
    on_broker.write("app.py", code(*MADE))
    on_broker.write("renamed.py", BREAKING["a step before the open one"][0])
    with served(on_broker):
        on_broker.out("start", "order", "--input", '"lamp"', "--id", "o-1")
        wait_for_ship(on_broker, "o-1")
        assert on_broker.out("check", "app:worker").endswith("1 fit, none would break")
        done = on_broker.run("check", "renamed:worker")
        assert done.returncode == 1
        assert "step 'ship' (open) -> step 'audit'" in done.stdout
        plain = Program(on_broker.directory)
        there = ["--operator", broker_url, *on_broker.options[2:]]
        assert plain.run("check", "renamed:worker", *there).returncode == 1


def test_an_operator_that_does_not_answer_is_an_error(on_broker: Program) -> None:
    done = on_broker.run("check", "app:worker")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no operator has answered within 5 s" in done.stderr
