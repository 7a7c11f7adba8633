"""Wrong arguments, wrong places: one paragraph, exit code 2 for usage and 1 for runtime."""

import sqlite3

import pytest

from durable_worker.protocol.names import Names
from tests.integration.cli.programs import Program

UNREACHABLE = "amqp://guest:secret@127.0.0.1:1/"


def _told(program: Program, *words: str, code: int, broker: str | None = None) -> str:
    done = program.run(*words, env={} if broker is None else {"DURABLE_BROKER_URL": broker})
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["nosuch"], "No such command 'nosuch'"),
        (["run"], "Missing argument 'TARGET'"),
        (["run", "app:worker", "--concurrency", "many"], "'--concurrency'"),
        (["run", "app:worker", "--concurrency", "0"], "'--concurrency'"),
        (["run", "app:worker", "--nosuch"], "No such option"),
        (["run", "app:worker", "--broker", "http://x/"], "its scheme is neither amqp nor amqps"),
        (["runs", "--status", "happy"], "'happy' is not one of"),
        (["runs", "--db", "x", "--broker", "y"], "--db and --broker exclude each other"),
        (["runs", "--broker", "amqp://u:12#secret@127.0.0.1:1/"], "percent-encode"),
        (["run", "app:worker", "--broker", "amqp://u:20/secret@h/"], "percent-encode"),
        (["show", ""], "Invalid value for 'RUN': it is empty"),
        (["run", "app:worker", "--grace", "inf"], "Invalid value for '--grace'"),
        (["runs"], "neither --db PATH nor --broker URL was given"),
        (["runs", "--db", "nosuch.db"], "there is no database nosuch.db"),
        (["start", "x", "--input", '{"a":}'], "not JSON: expecting value at line 1, column 6"),
        (["start", "x", "--input", "[1,"], "line 1, column 4, where it ends"),
        (["start", "x", "--input", "NaN"], "--input is not JSON"),
        (["signal", "x", "--payload", "abc"], "--payload is not JSON"),
        (["operator", "--database", "oracle://user:secret@x/y"], "postgresql://USER@HOST:PORT/"),
        (
            ["operator", "--database", "postgresql://u:secret@h/d?schema=a-b"],
            "the name of a schema",
        ),
        (["runs", "--db", "postgresql://u:12#secret@h/d"], "is written %23"),
        (["db", "check"], "which database? Name a path"),
        (["db", "export", "nosuch.db"], "there is no database nosuch.db"),
        (["db", "import", "x.db", "--input", "nosuch"], "nosuch cannot be read"),
        (["operator", "--database", "sqlite:///"], "names no file"),
    ],
)
def test_a_usage_error_is_one_paragraph_and_exit_code_2(
    program: Program, words: list[str], part: str
) -> None:
    told = _told(program, *words, code=2)
    assert part.lower() in told.lower()
    assert "secret" not in told


def test_a_database_that_cannot_be_opened_is_a_runtime_error(program: Program) -> None:
    program.write("notes.txt", "no database")
    assert "'notes.txt' is not a SQLite database" in _told(
        program, "runs", "--db", "notes.txt", code=1
    )


def test_a_database_of_a_newer_release_is_refused(program: Program) -> None:
    with program.serving("dev", "app:worker", "--no-reload") as dev:
        dev.wait_for("lease_acquired")
    with sqlite3.connect(program.directory / ".durable/dev.db") as database:
        database.execute("UPDATE schema_version SET version = 999")
    database.close()
    assert "schema version 999" in _told(program, "runs", code=1)
    with program.serving("dev", "app:worker", "--no-reload") as dev:
        dev.wait_for("error: the database '.durable/dev.db' has schema version 999")
        assert dev.ended() == 1


def test_a_broker_that_is_not_there_is_given_up_by_a_client(program: Program) -> None:
    told = _told(program, "runs", broker=UNREACHABLE, code=1)
    assert "127.0.0.1:1" in told
    assert "gave up after 5 s" in told
    assert "secret" not in told


@pytest.mark.parametrize("command", [["run", "app:worker"], ["operator"], ["runs"]])
def test_a_wrong_password_ends_the_program(
    program: Program, broker_url: str, prefix: str, command: list[str]
) -> None:
    place = broker_url.rpartition("@")[2]
    url = f"amqp://guest:notthepassword@{place}"
    done = program.run(*command, "--broker", url, "--prefix", prefix)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: the broker at ")
    assert "refused" in last
    assert "notthepassword" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["run", "app:worker"], ["operator"], ["runs"]])
def test_an_unknown_virtual_host_ends_the_program(
    program: Program, broker_url: str, prefix: str, command: list[str]
) -> None:
    authority = broker_url.split("/")[2]
    url = f"amqp://{authority}/no-such-{prefix}"
    done = program.run(*command, "--broker", url, "--prefix", prefix)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert f"no-such-{prefix}" in last


def test_an_id_too_long_for_the_broker_is_refused_with_its_size(on_broker: Program) -> None:
    told = _told(on_broker, "start", "greeting", "--id", "r" * 300, code=1)
    assert "message id" in told
    assert "has 300 bytes, the limit is 255" in told
    assert "unexpected" not in told


def test_without_an_operator_a_question_over_the_broker_says_so(
    on_broker: Program, prefix: str
) -> None:
    told = _told(on_broker, "runs", code=1)
    assert f"no operator has answered within 5 s on prefix {Names(prefix).prefix!r}" in told
    assert "durable-worker operator" in told
