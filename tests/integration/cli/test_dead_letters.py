"""A step that kills its process each time, from the first death to the redrive that mends it."""

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import monotonic

import aio_pika
import pytest

from tests.integration.cli.programs import PATIENCE, Program

APP = """
import os
from pathlib import Path

from durable_worker import StepContext, Worker, WorkflowContext

worker = Worker()
payments = Worker()


@payments.step("charge")
def charge(amount: int) -> str:
    with open("deaths", "a") as deaths:
        deaths.write(".")
    if not Path("mended").exists():
        os._exit(1)
    return f"paid {amount}"


@worker.step("note")
async def note(text: str) -> str:
    with open("notes", "a") as notes:
        notes.write(text)
    return text


@worker.workflow("charging")
async def charging(ctx: WorkflowContext, amount: int) -> list[str]:
    before = await ctx.step(note, "before.")
    ctx.set_event("state", "charging")
    try:
        paid = await ctx.step("charge", amount, returns=str)
    except Exception:
        ctx.set_event("state", "failed")
        raise
    return [before, paid, await ctx.step(note, "after.")]
"""

SUPERVISOR = """
import os
import signal
import sys

import durable_worker.cli.run
import durable_worker.transports.rabbitmq
from durable_worker.cli.app import main

child = 0


def stop(*_):
    os.kill(child, signal.SIGKILL)
    os._exit(0)


while True:
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        main(["run", "app:payments", *sys.argv[1:]])
    signal.signal(signal.SIGTERM, stop)
    os.waitpid(child, 0)
"""


@contextmanager
def supervised_worker(program: Program) -> Iterator[None]:
    """A worker that is there again as soon as it is gone."""
    program.write("supervise.py", SUPERVISOR)
    process = subprocess.Popen(
        [sys.executable, "supervise.py", *program.options],
        cwd=program.directory,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


DELIVERIES_A_LETTER = 11


async def give_back(url: str, queue: str, *, times: int) -> None:
    """Take a message and hand it back, so often: to the broker that is a death."""
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        found = await channel.get_queue(queue, ensure=False)
        while times:
            message = await found.get(fail=False)
            if message is None:
                await asyncio.sleep(0.02)
            else:
                await message.reject(requeue=True)
                times -= 1


def test_a_step_that_kills_its_process_each_time_fails_as_poison_and_is_redriven(
    on_broker: Program, broker_url: str, prefix: str
) -> None:
    on_broker.write("app.py", APP)
    beside = Program(on_broker.directory)  # the same runs, by way of the database
    with on_broker.serving("operator", "--database", "op.db") as operator:
        operator.wait_for("lease_acquired")
        with on_broker.serving("run", "app:worker"), ExitStack() as later:
            on_broker.out("start", "charging", "--input", "5", "--id", "r1")
            _wait_for_file(on_broker, "notes")
            # The operator sends it twice more: only the last of these deaths need be real ones.
            queue = f"{prefix}-tasks-charge"
            asyncio.run(give_back(broker_url, queue, times=2 * DELIVERIES_A_LETTER))
            later.enter_context(supervised_worker(on_broker))
            for _ in range(3):
                operator.wait_for("dead_letter_kept")
            operator.wait_for("step_poisoned")
            failed = on_broker.run("start", "charging", "--id", "r1", "--wait")
            assert failed.returncode == 1
            assert "[poison]" in failed.stderr, failed.stderr
            assert "step 'charge' (seq 2, attempt 1) was delivered 33 times" in failed.stderr
            (letter,) = json.loads(on_broker.out("dead", "list", "--json"))
            assert f"durable-worker dead show {letter['id']}" in failed.stderr
            assert letter["id"] in on_broker.out("show", "r1")
            assert (letter["status"], letter["name"]) == ("failed-step", "charge")
            assert letter["queue"].endswith("-tasks-charge")
            assert json.loads(beside.out("dead", "list", "--json", "--db", "op.db")) == [letter]

            shown = on_broker.out("dead", "show", letter["id"])
            assert "step 'charge' of run r1 (seq 2, attempt 1)" in shown
            assert '"input": 5' in shown
            assert shown == beside.out("dead", "show", letter["id"], "--db", "op.db")

            deaths = len((on_broker.directory / "deaths").read_text())
            assert deaths == DELIVERIES_A_LETTER
            assert on_broker.out("query", "r1", "state") == '"failed"'
            (on_broker.directory / "mended").touch()
            redriven = on_broker.run("dead", "redrive", letter["id"])
            assert (redriven.returncode, redriven.stdout) == (0, "")
            assert f"redriven {letter['id']}: step 'charge' of run r1" in redriven.stderr
            done = on_broker.run("start", "charging", "--id", "r1", "--wait")
            assert json.loads(done.stdout) == ["before.", "paid 5", "after."]
            # Only the step that had failed ran again, once.
            assert len((on_broker.directory / "deaths").read_text()) == deaths + 1
            assert (on_broker.directory / "notes").read_text() == "before.after."
            assert on_broker.out("query", "r1", "state") == '"charging"'

        listed = on_broker.out("dead", "list", "--run", "r1")
        assert "redriven" in listed
        again = on_broker.run("dead", "redrive", "--all")
        assert (again.returncode, again.stderr) == (0, "no dead letter that could be redriven\n")
        operator.signal(signal.SIGTERM)
        assert operator.ended() == 0


def _wait_for_file(program: Program, name: str) -> None:
    """Until it is there; each look takes as long as a command does."""
    until = monotonic() + PATIENCE
    while not (program.directory / name).exists():
        assert monotonic() < until, f"no {name}"
        program.run("--version")


def test_letters_of_a_database_that_nobody_operates(program: Program) -> None:
    with program.serving("dev", "app:worker", "--no-reload") as dev:
        dev.wait_for("lease_acquired")
        dev.signal(signal.SIGTERM)
        assert dev.ended() == 0
    assert program.out("dead", "list") == "no dead letters"
    database = program.directory / ".durable" / "dev.db"
    _put_letter(database, "l1", b'{"tenant":"default","workflow":"greeting","input":"you"}')
    _put_letter(database, "l2", bytes(range(40)))

    assert "start-run" in program.out("dead", "list")
    assert "00000010  10 11 12" in program.out("dead", "show", "l2")
    missing = program.run("dead", "show", "l3")
    assert (missing.returncode, missing.stderr) == (1, "error: there is no dead letter 'l3'\n")
    redriven = program.run("dead", "redrive", "l1", "l3")
    assert redriven.returncode == 1
    assert "there is no dead letter 'l3'" in redriven.stderr
    assert "no operator has taken it up so far" in redriven.stderr
    with program.serving("dev", "app:worker", "--no-reload") as dev:
        dev.wait_for("dead_letter_redriven")
        assert program.out("start", "greeting", "--id", "run-l1", "--wait") == '"hello you"'
        dev.signal(signal.SIGTERM)
        assert dev.ended() == 0


def _put_letter(database: Path, letter_id: str, body: bytes) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute(
            "INSERT INTO dead_letters (id, received_at, type, message_id, reason, body, headers) "
            "VALUES (?, 4102444800000, 'start-run', ?, 'not read', ?, '{}')",
            (letter_id, f"run-{letter_id}", body),
        )
    connection.close()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["redrive"], "name the letters, or say --all"),
        (["redrive", "a", "--all"], "name the letters, or say --all"),
        (["redrive", "a", "--run", "r"], "--run goes with --all"),
        (["show"], "Missing argument 'ID'"),
        (["show", ""], "it is empty"),
        (["burn"], "No such command 'burn'"),
        ([], "Missing command"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(
    program: Program, words: list[str], reason: str
) -> None:
    done = program.run("dead", *words)
    assert done.returncode == 2
    assert reason in done.stderr


def test_a_payload_of_a_letter_is_shown_in_clear_to_whoever_has_the_codec(
    program: Program,
) -> None:
    program.write(
        "keys.py",
        "from durable_worker.payloads import Encrypt, Keyring, PayloadCodec\n"
        "codec = PayloadCodec(Encrypt(Keyring({'k1': bytes(range(64))})))\n",
    )
    with program.serving("dev", "app:worker", "--no-reload") as dev:
        dev.wait_for("lease_acquired")
        dev.signal(signal.SIGTERM)
        dev.ended()
    sealed = (
        b'{"tenant":"default","workflow":"w","input":{"$durable":{"v":1,"salt":"run-1",'
        b'"codec":[{"aes-siv":{"key":"k1"}}],'
        b'"data":"/HrVYk3UmQRN0kLPV4iYnPOVlBcJc7afCljwN3iB"}}}'
    )
    _put_letter(program.directory / ".durable" / "dev.db", "l1", sealed)
    assert "420" not in program.out("dead", "show", "l1")
    assert '"amount": 420' in program.out("dead", "show", "l1", "--codec", "keys:codec")
