"""What `dev` and `run` do about bodies that a replay could not repeat."""

import os
import select
import signal
import time
from pathlib import Path
from typing import Any

import anyio
import pytest
from msgspec import Raw
from structlog.testing import capture_logs

from durable_worker import Worker, WorkflowContext
from durable_worker.cli.embedding import shadow_command
from durable_worker.protocol.commands import DecisionStatus
from durable_worker.protocol.tasks import HistoryEvent, HistoryKind
from durable_worker.worker.determinism.checks import checks_for
from durable_worker.worker.determinism.policy import Determinism
from durable_worker.worker.turns import TurnRunner
from tests.integration.cli.programs import Program
from tests.replay.model import ModelOperator

APP = """
import time
from datetime import datetime
from pathlib import Path

from durable_worker import Worker, WorkflowContext

with Path("imported").open("a") as imported:
    imported.write("x")
print("a module may print")
worker = Worker()
NAMES = {"ada", "bob", "cid", "dee", "eve", "fay", "gus", "hal", "ida", "joe"}
CLOCKS = {
    "time": time.time(),
    "localtime": time.mktime(time.localtime()),
    "datetime": datetime.now().timestamp(),
    "date": time.mktime(datetime.today().timetuple()),
}


@worker.step("greet")
async def greet(name: str) -> str:
    return f"hello {name}"


@worker.workflow("each")
async def each(ctx: WorkflowContext) -> None:
    for name in NAMES:
        await ctx.step(greet, name)


@worker.workflow("sorted")
async def in_order(ctx: WorkflowContext) -> list[str]:
    print("a body may print")
    return [await ctx.step(greet, name) for name in sorted(NAMES)[:3]]


@worker.workflow("age")
async def age(ctx: WorkflowContext, clock: str) -> bool:
    return CLOCKS[clock] > SOON


@worker.workflow("stamped")
async def stamped(ctx: WorkflowContext) -> float:
    return time.time()
"""


def line_of(text: str) -> int:
    return next(n for n, line in enumerate(APP.splitlines(), 1) if text in line)


def test_dev_finds_a_body_that_iterates_over_a_set_and_shows_both_orders(
    program: Program,
) -> None:
    program.write("app.py", APP)
    seed = {"PYTHONHASHSEED": "1"}
    with program.serving("dev", "app:worker", "--no-reload", env=seed) as dev:
        dev.wait_for("lease_acquired")
        done = program.run("start", "each", "--id", "r1", "--wait")
        dev.wait_for("replay_diverged")
        place = f"app.py:{line_of('step(greet, name)')}"
        dev.wait_for("first time")
        assert dev.wait_for("'greet'").split()[1:] == ["step", "'greet'", "step", "'greet'"]
        values = dev.wait_for('"').split()
        assert dev.wait_for("app.py").split() == [place, place]
    assert len(values) == 2
    assert values[0] != values[1]
    assert done.returncode == 1
    assert "[replay-diverged]" in done.stderr
    assert place in done.stderr


def test_dev_runs_a_sound_body_and_its_second_replays_say_nothing(program: Program) -> None:
    program.write("app.py", APP)
    with program.serving("dev", "app:worker", "--no-reload") as dev:
        dev.wait_for("lease_acquired")
        out = program.out("start", "sorted", "--id", "r1", "--wait")
        dev.signal(signal.SIGTERM)
        assert dev.ended() == 0
    assert out == '["hello ada","hello bob","hello cid"]'
    assert not any("diverged" in line or "shadow" in line for line in dev.said)


def test_dev_replays_with_another_clock(program: Program) -> None:
    program.write("app.py", APP.replace("SOON", f"{time.time() + 86_400 * 30}"))
    with program.serving("dev", "app:worker", "--no-reload") as dev:
        dev.wait_for("lease_acquired")
        for clock in ("time", "localtime", "datetime", "date"):
            done = program.run("start", "age", "--input", f'"{clock}"', "--wait")
            assert "[replay-diverged]" in done.stderr, clock
            assert "returns false  returns true" in done.stderr


def test_dev_fails_a_run_that_reads_the_clock_and_says_what_to_use(program: Program) -> None:
    program.write("app.py", APP)
    with program.serving("dev", "app:worker", "--no-reload") as dev:
        dev.wait_for("lease_acquired")
        done = program.run("start", "stamped", "--id", "r1", "--wait")
    assert done.returncode == 1
    assert f"app.py:{line_of('return time.time()')}" in done.stderr
    assert "use ctx.now()" in done.stderr


def test_dev_that_is_told_to_warn_goes_on(program: Program) -> None:
    program.write("app.py", APP)
    with program.serving("dev", "app:worker", "--no-reload", "--determinism", "warn") as dev:
        dev.wait_for("lease_acquired")
        assert float(program.out("start", "stamped", "--id", "r1", "--wait")) > 0
        dev.wait_for("nondeterministic_call")
        assert "use ctx.now()" in dev.wait_for("A replay cannot repeat time.time")
    assert (program.directory / "imported").read_text() == "x"


def test_a_module_that_cannot_be_imported_a_second_time_costs_a_warning(program: Program) -> None:
    guard = 'if Path("imported").exists(): raise RuntimeError("the port is taken")\nwith Path'
    program.write("app.py", APP.replace("with Path", guard))
    with program.serving("dev", "app:worker", "--no-reload") as dev:
        assert "the port is taken" in dev.wait_for("shadow_unavailable")
        assert program.out("start", "sorted", "--wait") == '["hello ada","hello bob","hello cid"]'
        assert "stamped" in program.run("start", "stamped", "--wait").stderr


def shadow_of(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert len(children) == 1
    return int(children[0])


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_process_for_second_replays_dies_with_a_killed_dev(program: Program) -> None:
    program.write("app.py", APP)
    with program.serving("dev", "app:worker", "--no-reload") as dev:
        dev.wait_for("lease_acquired")
        program.out("start", "sorted", "--wait")
        shadow = shadow_of(dev.pid)
        assert is_alive(shadow)
        end = os.pidfd_open(shadow)
        os.kill(dev.pid, signal.SIGKILL)
        assert select.select([end], [], [], 10)[0] == [end]
        os.close(end)


def test_a_killed_process_for_second_replays_costs_a_warning(program: Program) -> None:
    program.write("app.py", APP)
    with program.serving("dev", "app:worker", "--no-reload") as dev:
        dev.wait_for("lease_acquired")
        program.out("start", "sorted", "--wait")
        os.kill(shadow_of(dev.pid), signal.SIGKILL)
        assert program.out("start", "sorted", "--wait") == '["hello ada","hello bob","hello cid"]'
        dev.wait_for("shadow_unavailable")
        dev.signal(signal.SIGTERM)
        assert dev.ended() == 0


@pytest.mark.anyio
async def test_a_turn_of_a_partition_with_a_large_history_comes_out_the_same_elsewhere(
    program: Program,
) -> None:
    program.write(
        "big.py",
        "from durable_worker import Worker\n"
        "worker = Worker()\n"
        "@worker.workflow('flow')\n"
        "async def flow(ctx):\n"
        "    return await ctx.step('second', [await ctx.step('first')])\n",
    )
    target = f"{program.directory / 'big.py'}:worker"
    worker = Worker()

    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext) -> Any:
        return await ctx.step("second", [await ctx.step("first")])

    checks = checks_for(worker, Determinism.RAISE, shadow=shadow_command(target), partition="south")
    runner = TurnRunner(worker, run_locally=no_local_steps, partition="south", checks=checks)
    operator = ModelOperator(
        history={
            0: HistoryEvent(
                seq=0, kind=HistoryKind.CALL, name="first", output=Raw(b'"%s"' % (b"x" * 1_000_000))
            )
        }
    )
    async with anyio.create_task_group() as group:
        group.start_soon(checks.serve)
        with capture_logs() as logged:
            decision = await runner.decide(operator.task())
        group.cancel_scope.cancel()
    runner.close()
    assert logged == []
    assert decision.status is DecisionStatus.CONTINUE, decision.error
    assert [getattr(each, "group", None) for each in decision.commands] == ["south"]


async def no_local_steps(*_: object) -> Any:
    raise AssertionError("no local step was expected")
