"""How large a message may be is an option of every command, and a variable of the environment."""

import json

from tests.integration.cli.programs import Program

LARGE = json.dumps("x" * 70_000)
LIMIT = {"DURABLE_MAX_MESSAGE_BYTES": "65536"}


def test_over_the_broker(on_broker: Program) -> None:
    with (
        on_broker.serving("operator", "--database", "op.db", "--max-message-bytes", "1000000"),
        on_broker.serving("run", "app:worker", env=LIMIT) as worker,
    ):
        done = on_broker.run("start", "greeting", "--input", LARGE, "--wait")
        assert done.returncode == 1
        assert "the workflow-decision for " in done.stderr
        assert "the limit is 65,536 (max_message_bytes, --max-message-bytes" in done.stderr
        assert on_broker.out("start", "greeting", "--input", '"you"', "--wait") == '"hello you"'
        worker.wait_for("connected")
    for words, env in ((("--max-message-bytes", "65536"), {}), ((), LIMIT)):
        done = on_broker.run("start", "greeting", "--input", LARGE, *words, env=env)
        assert done.returncode == 1
        assert "the start-run for " in done.stderr


def test_in_one_process(program: Program) -> None:
    dev_line = ("dev", "app:worker", "--no-reload")
    with program.serving(*dev_line, "--max-message-bytes", "65536") as dev:
        dev.wait_for("lease_acquired")
        done = program.run("start", "greeting", "--input", LARGE, "--wait")
        assert done.returncode == 1
        assert "the limit is 65,536" in done.stderr
    done = program.run("start", "greeting", "--id", "r1", "--input", LARGE, env=LIMIT)
    assert done.returncode == 1
    assert "the input of run 'r1' has 70,002 bytes, the limit is 65,536" in done.stderr


def test_a_limit_that_is_no_number_is_a_usage_error(program: Program) -> None:
    for command in (["run", "app:worker"], ["operator"], ["dev", "app:worker", "--no-reload"]):
        done = program.run(*command, env={"DURABLE_MAX_MESSAGE_BYTES": "16M"})
        assert done.returncode == 2
        assert "DURABLE_MAX_MESSAGE_BYTES is '16M': expected a number of bytes" in done.stderr
    done = program.run("runs", "--db", "x.db", "--max-message-bytes", "1")
    assert done.returncode == 2
    assert "Invalid value for '--max-message-bytes'" in done.stderr
