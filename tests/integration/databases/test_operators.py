"""The operator of the command line on a database server, over RabbitMQ and alone."""

import json
import signal
from collections.abc import Iterator

import pytest

from durable_worker.stores.address import ServerAddress
from tests.integration.cli.programs import Program, Serving
from tests.integration.databases.conftest import OwnServer

pytestmark = pytest.mark.broker


@pytest.fixture
def environment(broker_url: str, database: ServerAddress) -> dict[str, str]:
    return {"DURABLE_BROKER_URL": broker_url, "DURABLE_DATABASE_URL": database.url}


@pytest.fixture
def worker(program: Program, environment: dict[str, str], prefix: str) -> Iterator[Serving]:
    with program.serving("run", "app:worker", "--prefix", prefix, env=environment) as serving:
        serving.wait_for("connected")
        yield serving


def end(serving: Serving) -> None:
    serving.signal(signal.SIGTERM)
    serving.wait_for_end()
    assert serving.ended() == 0


def test_runs_go_on_after_an_operator_was_killed(
    program: Program, environment: dict[str, str], prefix: str, worker: Serving
) -> None:
    def run(*words: str) -> str:
        done = program.run(*words, "--prefix", prefix, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    with program.serving("operator", "--prefix", prefix, env=environment) as first:
        first.wait_for("lease_acquired")
        for number in range(5):
            run("start", "asking", "--id", f"r{number}", "--input", f'"q{number}"')
        first.signal(signal.SIGKILL)
        assert first.ended() == -signal.SIGKILL
        with program.serving("operator", "--prefix", prefix, env=environment) as second:
            assert "is_takeover=True" in second.wait_for("lease_acquired")
            for number in range(5):
                run("signal", f"q{number}", "--payload", f'"a{number}"')
            for number in range(5):
                started = run("start", "asking", "--id", f"r{number}", "--input", '""', "--wait")
                assert json.loads(started.splitlines()[-1]) == f"a{number}"
            end(second)


def test_the_database_is_asked_without_a_broker(
    program: Program, environment: dict[str, str], database: ServerAddress
) -> None:
    where = ("--db", database.url)
    with program.serving("dev", "app:worker", *where) as dev:
        dev.wait_for("lease_acquired")
        done = program.run("start", "greeting", "--id", "g", "--input", '"you"', "--wait", *where)
        assert (done.returncode, done.stdout.strip()) == (0, '"hello you"'), done.stderr
        listed = program.run("runs", "--json", env={"DURABLE_DATABASE_URL": database.url})
        assert [each["id"] for each in json.loads(listed.stdout)] == ["g"]
        shown = program.run("show", "g", "--json", *where)
        assert json.loads(shown.stdout)["run"]["status"] == "completed"
        end(dev)


def test_runs_move_from_a_file_to_a_server_and_go_on(
    program: Program, environment: dict[str, str], database: ServerAddress
) -> None:
    file = ("--db", "local.db")
    with program.serving("dev", "app:worker", *file) as dev:
        dev.wait_for("lease_acquired")
        program.out("start", "asking", "--id", "r", "--input", '"name"', *file)
        program.out("start", "greeting", "--id", "g", "--input", '"you"', "--wait", *file)
        refused = program.run("db", "import", "local.db", given="")
        assert refused.returncode == 1
        assert "an operator works on the database" in refused.stderr
        end(dev)
    exported = program.run("db", "export", "local.db", "--output", "runs.jsonl")
    assert exported.returncode == 0, exported.stderr
    again = program.run("db", "export", "local.db", "--output", "runs.jsonl")
    assert (again.returncode, "is not overwritten" in again.stderr) == (2, True)
    imported = program.run("db", "import", database.url, "--input", "runs.jsonl")
    assert imported.returncode == 0, imported.stderr
    assert "2 of them runs" in imported.stderr
    where = ("--db", database.url)
    with program.serving("dev", "app:worker", *where) as dev:
        dev.wait_for("lease_acquired")
        program.out("signal", "name", "--payload", '"Ada"', *where)
        answered = program.run("start", "asking", "--id", "r", "--wait", *where)
        assert answered.stdout.strip() == '"Ada"', answered.stderr
        end(dev)


def test_an_operator_waits_for_its_database(
    program: Program, broker_url: str, prefix: str, own_server: OwnServer
) -> None:
    with own_server.database() as database:
        own_server.server.stop()
        words = ("operator", "--database", database.url, "--broker", broker_url, "--prefix", prefix)
        with program.serving(*words) as operator:
            told = operator.wait_for("database_unavailable")
            assert "cannot be reached" in told
            own_server.server.start()
            operator.wait_for("database_available")
            operator.wait_for("lease_acquired")
            end(operator)
        own_server.server.stop()
        with program.serving(*words) as operator:
            operator.wait_for("database_unavailable")
            end(operator)
        own_server.server.start()


@pytest.mark.parametrize("scheme", ["postgresql", "mysql", "mariadb"])
def test_a_password_on_the_command_line_is_warned_of(
    program: Program, broker_url: str, prefix: str, scheme: str
) -> None:
    url = f"{scheme}://u:secret@127.0.0.1:1/d"
    words = ("operator", "--database", url, "--broker", broker_url, "--prefix", prefix)
    with program.serving(*words) as operator:
        operator.wait_for("database_password_on_command_line")
        operator.wait_for("database_unavailable")
        assert "secret" not in "".join(operator.said)
