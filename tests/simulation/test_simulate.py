"""A user's own workflow under simulation, from a test and from the command line."""

import asyncio
import json
import os
import re
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from durable_worker import FatalError, Worker, WorkflowContext
from durable_worker.errors import UsageError
from durable_worker.testing.simulation import (
    FaultKind,
    MissingStepsError,
    Outcome,
    SimulationFailedError,
    simulate,
)

worker = Worker()
numbers = count()


@worker.step("charge")
async def charge(amount: int) -> str:
    await asyncio.sleep(1)
    return f"receipt for {amount}"


@worker.step("draw")
def draw() -> int:
    return next(numbers)


@worker.step("connect")
async def connect() -> None:
    await asyncio.open_connection("127.0.0.1", 9)


@worker.workflow("checkout")
async def checkout(ctx: WorkflowContext, amount: int) -> str:
    receipt = await ctx.step(charge, amount)
    await ctx.step("ship", receipt)
    by = await ctx.wait_signal("approved", returns=str)
    return f"{receipt}, approved by {by}"


@worker.workflow("lottery")
async def lottery(ctx: WorkflowContext) -> int:
    return await ctx.step(draw)


@worker.workflow("calling")
async def calling(ctx: WorkflowContext) -> None:
    await ctx.step(connect)


@worker.workflow("hurried")
async def hurried(ctx: WorkflowContext) -> str:
    try:
        async with asyncio.timeout(1.02):  # the step takes about so long
            return await ctx.step(charge, 1)
    except TimeoutError:
        return "late"


SHIPPED = {"ship": None}


def test_a_sound_workflow_ends_the_same_in_every_world() -> None:
    report = simulate(
        worker,
        checkout,
        7,
        seeds=40,
        real=["charge"],
        stubs=SHIPPED,
        signals={"approved": "Ada"},
    )
    ended = Outcome("completed", '"receipt for 7, approved by Ada"')
    assert (report.seeds, report.calm, report.outcomes["run"]) == (40, ended, {ended: 40})
    assert report.faults.total() > 100


def test_a_stub_may_be_a_function_of_the_input_or_an_error() -> None:
    stubs = {"charge": lambda amount: f"{amount} paid", "ship": FatalError("no lorry")}
    report = simulate(worker, "checkout", 7, seeds=3, stubs=stubs)
    assert report.calm == Outcome("failed", "step 'ship' failed [FatalError]: no lorry")


def test_a_step_that_may_not_run_is_named_with_all_that_lack_a_decision() -> None:
    with pytest.raises(MissingStepsError) as raised:
        simulate(worker, checkout, 7, seeds=1, real=["charge"])
    assert raised.value.names == ["ship", "draw", "connect"]
    assert "--stub ship=JSON" in str(raised.value)


def test_a_workflow_whose_step_is_not_what_it_was_said_to_be_fails() -> None:
    with pytest.raises(SimulationFailedError) as raised:
        simulate(worker, lottery, seeds=2, real=["draw"])
    failure = raised.value.report.failures[0]
    assert (failure.seed, failure.faults) == (0, ())
    assert "run run ended as completed" in failure.violations[0]


def test_a_body_in_which_time_decides_may_end_in_any_way() -> None:
    report = simulate(worker, hurried, seeds=40, real=["charge"], any_end=True)
    assert report.outcomes["run"].keys() == {
        Outcome("completed", '"late"'),
        Outcome("completed", '"receipt for 1"'),
    }


def test_a_wait_that_nobody_ends_is_told_without_any_fault() -> None:
    with pytest.raises(SimulationFailedError, match=r"waits for \['2 approved'\]"):
        simulate(worker, checkout, 7, seeds=1, real=["charge"], stubs=SHIPPED)


def test_a_step_that_wants_a_socket_is_told_that_there_is_none() -> None:
    calm = simulate(worker, calling, seeds=1, real="all").calm
    assert calm is not None
    assert calm.status == "failed"
    assert "`create_connection` was called in a simulation" in calm.value


def test_only_the_faults_that_are_asked_for_hit() -> None:
    report = simulate(
        worker,
        checkout,
        7,
        seeds=30,
        real=["charge"],
        stubs=SHIPPED,
        signals={"approved": "Ada"},
        faults=[FaultKind.CUT],
    )
    assert report.faults.keys() == {"cut"}


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"workflow": "nope"}, "has no workflow 'nope'"),
        ({"workflow": "checkout", "real": ["nope"]}, "has no step 'nope'"),
    ],
)
def test_a_name_that_the_worker_does_not_have_is_refused(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        simulate(worker, **wrong)


def test_it_may_be_called_where_a_loop_runs() -> None:
    async def main() -> int:
        await asyncio.sleep(0)
        report = simulate(
            worker,
            checkout,
            1,
            seeds=2,
            stubs={"charge": "", "ship": 0},
            signals={"approved": "Ada"},
        )
        await asyncio.sleep(0)
        return report.seeds

    assert asyncio.run(main()) == 2


# The command line

APP = """
from durable_worker import Worker, WorkflowContext

worker = Worker()
runs = 0

@worker.step("draw")
async def draw() -> int:
    global runs
    runs += 1
    return runs

@worker.workflow("lottery")
async def lottery(ctx: WorkflowContext, name: str) -> str:
    return f"{name} {await ctx.step(draw)}"
"""


def run(directory: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    (directory / "app.py").write_text(APP)
    return subprocess.run(
        [sys.executable, "-m", "durable_worker", "simulate", "app:worker", *words],
        cwd=directory,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_command_tells_what_it_injected_and_how_runs_ended(tmp_path: Path) -> None:
    words = ("--workflow", "lottery", "--input", '"Ada"', "--stub", "draw=4", "--seeds", "20")
    done = run(tmp_path, *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"20 worlds, .* of their time", done.stdout)
    assert re.search(r"faults: .*\d+ delay", done.stdout)
    assert '20 completed: "Ada 4"' in done.stdout
    told = json.loads(run(tmp_path, *words, "--json").stdout)
    assert (told["seeds"], told["outcomes"], told["failures"]) == (
        20,
        {'completed: "Ada 4"': 20},
        [],
    )


def test_the_command_tells_how_to_repeat_a_seed_that_failed(tmp_path: Path) -> None:
    words = ("--workflow", "lottery", "--input", '"Ada"', "--real", "draw", "--processes", "1")
    done = run(tmp_path, *words, "--seeds", "1", "--json")
    assert done.returncode == 1
    (failure,) = json.loads(done.stdout)["failures"]
    assert failure["repeat"].endswith("--real draw --seed 0")
    assert any("ran draw" in line for line in failure["trace"])


def test_the_command_names_what_is_missing_and_what_it_cannot_read(tmp_path: Path) -> None:
    missing = run(tmp_path, "--workflow", "lottery", "--input", '"Ada"')
    assert missing.returncode == 2
    assert "--stub draw=JSON" in missing.stderr
    for words, told in (
        (("--stub", "draw"), "--stub reads NAME=JSON"),
        (("--stub", "draw=}"), "--stub draw is not JSON"),
        (("--faults", "rain"), "--faults knows crash, "),
    ):
        refused = run(tmp_path, "--workflow", "lottery", *words)
        assert (refused.returncode, told in refused.stderr) == (2, True), refused.stderr


def test_the_command_tells_what_happens_in_one_world(tmp_path: Path) -> None:
    done = run(
        tmp_path, "--workflow", "lottery", "--input", '"Ada"', "--stub", "draw=4", "--seed", "3"
    )
    assert done.returncode == 0
    assert "1 worlds" in done.stdout
    assert "ran draw run:0:1" in done.stdout
