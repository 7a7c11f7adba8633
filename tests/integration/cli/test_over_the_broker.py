"""`run`, `operator` and the clients over RabbitMQ."""

import json
import signal
from time import monotonic

import pytest

from tests.integration.cli.programs import Program


def test_a_run_over_the_broker_from_start_to_end(on_broker: Program, prefix: str) -> None:
    with (
        on_broker.serving("operator", "--database", "op.db") as operator,
        on_broker.serving("run", "app:worker") as worker,
    ):
        assert f"prefix {prefix}" in operator.wait_for("operates the runs of")
        operator.wait_for("lease_acquired")
        greet = worker.wait_for("step ").split()
        assert greet == ["step", "greet", f"{prefix}-tasks-greet"]
        asked = worker.wait_for("workflow  greeting").split()
        assert asked == ["workflow", "greeting", "2", f"{prefix}-tasks-greeting"]
        assert "guest:guest" not in worker.wait_for("connected")

        done = on_broker.run("start", "greeting", "--input", '"you"', "--id", "r1", "--wait")
        assert (done.returncode, done.stdout) == (0, '"hello you"\n')
        listed = json.loads(on_broker.out("runs", "--json"))
        assert [(each["id"], each["status"]) for each in listed] == [("r1", "completed")]
        assert "greet" in on_broker.out("show", "r1")

        on_broker.out("start", "asking", "--input", '"why:1"', "--id", "r2")
        on_broker.out("signal", "why:1", "--payload", '"because"')
        assert on_broker.out("start", "asking", "--id", "r2", "--wait") == '"because"'

        failed = on_broker.run("start", "refusing", "--input", '"Bob"', "--wait")
        assert failed.returncode == 1
        assert "Bob is not welcome" in failed.stderr

        on_broker.out("start", "lingering", "--input", "60", "--id", "r3")
        _wait_for_file(on_broker, "lingering")
        assert on_broker.run("cancel", "r3").stderr == "run r3 is cancelled\n"

        for each in (worker, operator):
            each.signal(signal.SIGTERM)
        assert [worker.ended(), operator.ended()] == [0, 0]


def test_a_start_without_operator_says_so_and_is_kept(on_broker: Program) -> None:
    done = on_broker.run("start", "greeting", "--input", '"you"', "--id", "r1")
    assert (done.returncode, done.stdout) == (0, "r1\n")
    assert "once `durable-worker operator` runs" in done.stderr
    with (
        on_broker.serving("operator", "--database", "op.db"),
        on_broker.serving("run", "app:worker"),
    ):
        assert on_broker.out("start", "greeting", "--id", "r1", "--wait") == '"hello you"'


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_worker_ends_promptly_when_told_to(on_broker: Program, number: int) -> None:
    with on_broker.serving("run", "app:worker") as worker:
        worker.wait_for("connected")
        told_at = monotonic()
        worker.signal(number)
        assert worker.ended() == 0
        assert monotonic() - told_at < 3


def test_a_worker_finishes_its_step_before_it_ends(on_broker: Program) -> None:
    with (
        on_broker.serving("operator", "--database", "op.db"),
        on_broker.serving("run", "app:worker", "--log-format", "json") as worker,
    ):
        worker.wait_for('"event":"connected"')
        on_broker.out("start", "lingering", "--input", "1.5", "--id", "r1")
        _wait_for_file(on_broker, "lingering")
        worker.signal(signal.SIGTERM)
        worker.wait_for('"event":"draining"')
        assert json.loads(worker.wait_for('"step_completed"'))["step"] == "linger"
        assert worker.ended() == 0
        assert (on_broker.directory / "lingered").exists()


def test_a_second_signal_cancels_the_step_and_gives_its_message_back(on_broker: Program) -> None:
    with on_broker.serving("operator", "--database", "op.db"):
        with on_broker.serving("run", "app:worker") as worker:
            worker.wait_for("connected")
            on_broker.out("start", "lingering", "--input", "4", "--id", "r1")
            _wait_for_file(on_broker, "lingering")
            worker.signal(signal.SIGTERM)
            worker.wait_for("draining")
            _let_pass_as_two_signals(on_broker)
            worker.signal(signal.SIGTERM)
            assert worker.ended() == 0
            assert not (on_broker.directory / "lingered").exists()
        with on_broker.serving("run", "app:worker"):
            assert on_broker.out("start", "lingering", "--id", "r1", "--wait") == '"stayed"'


@pytest.mark.parametrize("command", [["run", "app:worker"], ["operator"]])
def test_a_broker_that_is_away_is_tried_again_until_told_to_stop(
    program: Program, command: list[str]
) -> None:
    with program.serving(*command, "--broker", "amqp://guest:secret@127.0.0.1:1/") as serving:
        line = serving.wait_for("connect_failed  attempt=2")
        assert "retry_in=" in line
        assert "reason=" in line
        serving.signal(signal.SIGTERM)
        assert serving.ended() == 0
        assert not any("secret" in line for line in serving.said)


def _wait_for_file(program: Program, name: str) -> None:
    """Until the file is there; each look takes as long as a command does."""
    until = monotonic() + 30
    while not (program.directory / name).exists():
        assert monotonic() < until, f"no {name}"
        program.run("--version")


def _let_pass_as_two_signals(program: Program) -> None:
    """Signals in quick succession count as one."""
    until = monotonic() + 0.4
    while monotonic() < until:
        program.run("--version")
