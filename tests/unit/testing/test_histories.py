"""What the tests of applications use: record a run, replay it on today's code."""

from datetime import timedelta
from pathlib import Path

import pytest

from durable_worker import NondeterminismError, RegistrationError, Worker, WorkflowContext
from durable_worker.embedded import Embedded
from durable_worker.errors import ProtocolError, RunNotFoundError
from durable_worker.protocol.runs import RunDetail
from durable_worker.protocol.tasks import WorkflowTask
from durable_worker.testing import histories, replay_history, save_history

pytestmark = pytest.mark.anyio

PATIENCE = timedelta(seconds=20)

worker, changed = Worker(), Worker()


@worker.step("double")
async def double(value: int) -> int:
    return value * 2


@worker.workflow("doubling")
async def doubling(ctx: WorkflowContext, value: int) -> int:
    return await ctx.step(double, value)


@changed.workflow("doubling")
async def trebling(ctx: WorkflowContext, value: int) -> int:
    return await ctx.step("treble", value, returns=int)


@pytest.fixture
async def saved(tmp_path: Path) -> Path:
    path = tmp_path / "recorded" / "doubling.json"
    async with Embedded(worker) as client:
        run = await client.start(doubling, 4, run_id="r1")
        await run.result(timeout=PATIENCE)
        await save_history(client, "r1", path)
    return path


async def test_a_saved_run_fits_the_code_that_made_it(saved: Path) -> None:
    replay_history(worker, saved)
    replay_history(worker, str(saved))


async def test_a_saved_run_that_no_longer_fits_raises_with_both_sides(saved: Path) -> None:
    with pytest.raises(NondeterminismError) as raised:
        replay_history(changed, saved)
    assert (raised.value.seq, raised.value.asked) == (0, "step 'treble'")
    (note,) = raised.value.__notes__
    header, row, *_ = note.splitlines()
    assert header.split() == ["SEQ", "HISTORY", "CODE", "LINE"]
    assert row.split()[:6] == [">", "0", "step", "'double'", "step", "'treble'"]


async def test_another_output_counts_unless_it_is_not_asked_for(saved: Path) -> None:
    other = Worker()

    @other.workflow("doubling")
    async def odd(ctx: WorkflowContext, value: int) -> int:
        return await ctx.step("double", value, returns=int) + 1

    with pytest.raises(NondeterminismError, match=r"completed with 8, .* completed with 9"):
        replay_history(other, saved)
    replay_history(other, saved, compares_end=False)


async def test_values_are_histories_as_files_are() -> None:
    async with Embedded(worker) as client:
        run = await client.start(doubling, 4)
        await run.result(timeout=PATIENCE)
        detail: RunDetail = await run.detail()
    replay_history(worker, detail)
    task = WorkflowTask(
        task_id="t",
        run_id="r1",
        workflow="doubling",
        workflow_version="1",
        input=detail.run.input,
        history=[],
        group="doubling",
        attempt=1,
    )
    replay_history(worker, task)
    with pytest.raises(RegistrationError, match="workflow 'doubling' is not registered"):
        replay_history(Worker(), task)


def test_the_histories_of_a_directory_come_by_name(tmp_path: Path) -> None:
    names = [f"{letter}.json" for letter in "qwertyuiopasdfghjkl"]
    for name in (*names, "notes.txt"):
        (tmp_path / name).write_text("{}")
    assert [each.name for each in histories(tmp_path)] == sorted(names)
    with pytest.raises(ProtocolError, match="neither a timeline"):
        replay_history(worker, tmp_path / "a.json")


def test_a_directory_without_histories_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no \*.json"):
        histories(tmp_path)


async def test_a_run_that_does_not_exist_is_not_saved(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    async with Embedded(worker) as client:
        with pytest.raises(RunNotFoundError):
            await save_history(client, "none", path)
    assert not path.exists()
