"""Processes that are told to stop while there is work: nothing is lost and nothing runs twice.

No fault is noted here, so the auditor excuses no repetition.
"""

import asyncio
import signal
import time
from pathlib import Path

import pytest

from tests.chaos.audit.rules import audit
from tests.chaos.deployment import Deployment
from tests.chaos.logbook import Logbook

pytestmark = pytest.mark.broker


async def test_a_rolling_restart_under_load_loses_nothing_and_runs_nothing_twice(
    tmp_path: Path, broker_url: str, prefix: str
) -> None:
    async with Deployment(tmp_path, broker_url, prefix, "--concurrency", "4") as deployed:
        workers = [deployed.add_worker() for _ in range(4)]
        operators = deployed.fleet.of("operator")
        async with deployed.load.running():
            for worker in workers:
                await deployed.begun(worker, 1)
            for worker in workers:
                assert await deployed.fleet.stop(worker) == 0
                await deployed.begun(deployed.add_worker(), 2)
            for operator in operators:
                assert await deployed.fleet.stop(operator) == 0
                deployed.add_operator()
                await deployed.load.more_ended(3)
            await deployed.load.settled()
        assert audit(await deployed.finish()) == []


async def test_a_worker_that_is_told_to_stop_takes_nothing_more_and_finishes_what_runs(
    tmp_path: Path, broker_url: str, prefix: str
) -> None:
    async with (
        Deployment(tmp_path, broker_url, prefix, "--concurrency", "2") as deployed,
        deployed.load.looking(),
        asyncio.TaskGroup() as runs,
    ):
        worker = deployed.add_worker()
        for _ in range(3):
            runs.create_task(deployed.load.one("long"))
        await deployed.begun(worker, 2)  # both of its slots are taken, more is in its hands
        stopping = asyncio.create_task(deployed.fleet.stop(worker))
        other = deployed.add_worker()
        assert await stopping == 0
        assert len(deployed.journal("start", worker)) == 2
        assert len(deployed.journal("end", worker)) == 2
        await deployed.begun(other, 4)
        while runs_open := deployed.load.open_runs():
            await deployed.load.more_ended(len(runs_open.split(", ")))
        assert audit(await deployed.finish()) == []


async def test_a_step_that_outlives_the_grace_period_goes_back_and_runs_elsewhere(
    tmp_path: Path, broker_url: str, prefix: str
) -> None:
    async with (
        Deployment(tmp_path, broker_url, prefix, "--grace", "1") as deployed,
        deployed.load.looking(),
        asyncio.TaskGroup() as runs,
    ):
        worker = deployed.add_worker()
        run = runs.create_task(deployed.load.one("gated"))
        await deployed.begun(worker, 1)
        began = time.monotonic()
        assert worker.pid is not None
        pid = worker.pid
        assert await deployed.fleet.stop(worker) == 0
        ended = time.monotonic()
        assert ended - began < 15
        # The one reason for the repetition that follows.
        Logbook(tmp_path / "faults").write(
            kind="grace over", targets=[worker.name], pids=[pid], began=began, ended=ended
        )
        other = deployed.add_worker()
        await deployed.begun(other, 1)
        deployed.fleet.gate.touch()
        await run
        assert [entry["pid"] for entry in deployed.journal("effect")] == [other.pid]
        assert audit(await deployed.finish()) == []


async def test_a_second_signal_hurries_and_loses_nothing(
    tmp_path: Path, broker_url: str, prefix: str
) -> None:
    async with (
        Deployment(tmp_path, broker_url, prefix) as deployed,
        deployed.load.looking(),
        asyncio.TaskGroup() as runs,
    ):
        worker = deployed.add_worker()
        run = runs.create_task(deployed.load.one("gated"))
        await deployed.begun(worker, 1)
        began = time.monotonic()
        assert worker.pid is not None
        pid = worker.pid
        stopping = asyncio.create_task(deployed.fleet.stop(worker))
        await deployed.fleet.said(worker, '"draining"')
        await asyncio.sleep(0.5)  # two signals within 0.3 s count as one
        worker.signal(signal.SIGTERM)
        assert await stopping == 0
        Logbook(tmp_path / "faults").write(
            kind="hurried", targets=[worker.name], pids=[pid], began=began, ended=time.monotonic()
        )
        deployed.fleet.gate.touch()
        await deployed.begun(deployed.add_worker(), 1)
        await run
        assert audit(await deployed.finish()) == []
