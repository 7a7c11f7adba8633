"""`dev` and the commands that work on its database."""

import json
import os
import signal
from pathlib import Path

from tests.integration.cli.programs import Program


def test_a_run_on_the_local_database_is_started_shown_and_listed(program: Program) -> None:
    with program.serving("dev", "app:worker", "--no-reload") as dev:
        assert dev.wait_for("serves").endswith("serves app:worker, state in .durable/dev.db")
        dev.wait_for("lease_acquired")
        done = program.run("start", "greeting", "--input", '"you"', "--id", "r1", "--wait")
        assert (done.returncode, done.stdout) == (0, '"hello you"\n')
        assert done.stderr == "started greeting, run r1\n"

        shown = program.out("show", "r1").splitlines()
        assert shown[0].split() == ["run", "r1"]
        assert shown[1].split() == ["workflow", "greeting", "2"]
        assert shown[2].split()[:2] == ["status", "completed"]
        assert shown[4:6] == ['input     "you"', 'output    "hello you"']
        assert shown[7].split() == ["SEQ", "KIND", "NAME", "STATUS", "ATTEMPTS", "DURATION"]
        assert shown[8].split()[:5] == ["0", "step", "greet", "completed", "1"]
        assert shown[9].endswith("info   greeting")

        detail = json.loads(program.out("show", "r1", "--json"))
        assert detail["run"]["output"] == "hello you"
        assert [entry["name"] for entry in detail["timeline"]] == ["greet"]

        listed = json.loads(program.out("runs", "--json"))
        assert [(each["id"], each["status"]) for each in listed] == [("r1", "completed")]
        assert program.out("runs", "--status", "failed") == "no runs"
        dev.signal(signal.SIGINT)
        assert dev.ended() == 0


def test_a_failed_run_is_told_on_standard_error(program: Program) -> None:
    with program.serving("dev", "app:worker", "--no-reload") as dev:
        dev.wait_for("lease_acquired")
        done = program.run("start", "refusing", "--input", '"Bob"', "--id", "r1", "--wait")
    assert (done.returncode, done.stdout) == (1, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: run 'r1' (refusing) failed")
    assert "Bob is not welcome" in last


def test_what_is_started_without_an_operator_is_recorded_and_done_later(program: Program) -> None:
    with program.serving("dev", "app:worker", "--no-reload") as dev:
        dev.wait_for("lease_acquired")
        dev.signal(signal.SIGTERM)
        assert dev.ended() == 0
    done = program.run("start", "greeting", "--input", '"you"', "--id", "later")
    assert (done.returncode, done.stdout) == (0, "later\n")
    assert "`durable-worker dev TARGET` runs" in done.stderr
    waiting = program.run("show", "later")
    assert waiting.returncode == 1
    assert "is recorded, but no operator has taken it up yet" in waiting.stderr
    with program.serving("dev", "app:worker", "--no-reload") as dev:
        dev.wait_for("step_completed")
        assert "completed" in program.out("runs")


def test_a_signal_reaches_the_run_that_waits_for_it(program: Program) -> None:
    with program.serving("dev", "app:worker", "--no-reload") as dev:
        dev.wait_for("lease_acquired")
        assert program.out("start", "asking", "--input", '"why:1"', "--id", "r1") == "r1"
        sent = program.run("signal", "why:1", "--payload", '"because"')
        assert (sent.returncode, sent.stderr) == (0, "sent signal why:1\n")
        assert program.out("start", "asking", "--input", '"why:1"', "--id", "r1", "--wait") == (
            '"because"'
        )


def test_a_cancelled_run_is_cancelled_with_its_running_step(program: Program) -> None:
    with program.serving("dev", "app:worker", "--no-reload") as dev:
        dev.wait_for("lease_acquired")
        program.out("start", "lingering", "--input", "60", "--id", "r1")
        done = program.run("cancel", "r1")
        assert (done.returncode, done.stderr) == (0, "run r1 is cancelled\n")
        ended = program.run("start", "lingering", "--input", "60", "--id", "r1", "--wait")
        assert ended.returncode == 1
        assert "was cancelled" in ended.stderr


def test_a_cancelled_run_says_that_it_is_cleaning_up_and_can_be_ended_at_once(
    program: Program,
) -> None:
    with program.serving("dev", "app:worker", "--no-reload") as dev:
        dev.wait_for("lease_acquired")
        for run in ("r1", "r2"):
            program.out("start", "tidying", "--input", f'"{run}.gate"', "--id", run)
            done = program.run("cancel", run)
            assert done.stderr.startswith(f"run {run} is cancelling\nIts body has been told")
            assert program.out("query", run, "state") == '"tidying"'
        assert program.run("cancel", "r1", "--now").stderr == "run r1 is cancelled\n"
        program.write("r2.gate", "")
        ended = program.run("start", "tidying", "--id", "r2", "--wait")
        assert (ended.returncode, "was cancelled" in ended.stderr) == (1, True)
        missing = program.run("query", "r2", "nosuch")
        assert (missing.returncode, missing.stdout) == (1, "")
        assert "does not answer the query 'nosuch': it has published 'state'" in missing.stderr


def test_unknown_runs_are_told_apart_from_empty_ones(program: Program) -> None:
    with program.serving("dev", "app:worker", "--no-reload") as dev:
        dev.wait_for("lease_acquired")
        for command in ("show", "cancel"):
            done = program.run(command, "nosuch")
            assert (done.returncode, done.stdout) == (1, "")
            assert "there is no run 'nosuch'" in done.stderr


def test_interrupting_a_wait_says_that_the_run_goes_on(program: Program) -> None:
    with program.serving("dev", "app:worker", "--no-reload") as dev:
        dev.wait_for("lease_acquired")
        with program.serving(
            "start", "asking", "--input", '"x"', "--id", "r1", "--wait", "--debug"
        ) as start:
            start.wait_for("started asking")
            start.signal(signal.SIGINT)
            assert start.ended() == 130
            start.wait_for("durable-worker show r1")
            assert not any("Traceback" in line for line in start.said)


def test_a_change_of_source_restarts_the_worker(program: Program) -> None:
    with program.serving("dev", "app:worker") as dev:
        dev.wait_for("lease_acquired")
        app = program.directory / "app.py"
        app.write_text(app.read_text().replace("hello {name}", "goodbye {name}"))
        dev.wait_for("app.py changed")
        dev.wait_for("lease_acquired")
        assert program.out("start", "greeting", "--input", '"you"', "--wait") == '"goodbye you"'

        good = app.read_text()
        app.write_text("import nosuch\n")
        dev.wait_for("error: cannot load 'app:worker'")
        dev.wait_for("waiting for a change")
        app.write_text(good)
        dev.wait_for("lease_acquired")
        dev.signal(signal.SIGTERM)
        assert dev.ended() == 0


def test_a_killed_watcher_takes_its_child_with_it(program: Program) -> None:
    with program.serving("dev", "app:worker") as dev:
        dev.wait_for("lease_acquired")
        children = Path(f"/proc/{dev.pid}/task/{dev.pid}/children").read_text().split()
        os.kill(dev.pid, signal.SIGKILL)
        dev.wait_for("operator_stopped")
    assert len(children) == 1
