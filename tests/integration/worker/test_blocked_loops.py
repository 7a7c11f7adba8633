"""Code that keeps the event loop from turning is named: its step or turn, and its line."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

from durable_worker import Worker, WorkflowContext
from durable_worker.protocol.names import Names
from durable_worker.protocol.results import ResultStatus
from durable_worker.transports.memory import MemoryTransport
from durable_worker.worker.determinism.policy import Determinism
from tests.integration.worker.desk import eventually, serving

pytestmark = pytest.mark.anyio
NAMES = Names()
LIMIT = timedelta(seconds=0.2)
LONG = 1.0
"""Seconds of a blocking: plenty of looks, on a loaded machine too."""

Lines = list[Any]


@pytest.fixture
async def transport() -> AsyncIterator[MemoryTransport]:
    async with MemoryTransport(names=NAMES) as opened:
        yield opened


@pytest.fixture
def lines() -> Iterator[Lines]:
    with structlog.testing.capture_logs() as captured:
        yield captured


def named(lines: Lines, event: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["event"] == event]


def watches() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "durable-worker-loop-watch"]


async def test_a_step_that_sleeps_synchronously_is_named_with_its_line(
    transport: MemoryTransport, lines: Lines
) -> None:
    worker = Worker()

    @worker.step("charge")
    async def charge() -> str:
        time.sleep(LONG)  # noqa: ASYNC251
        return "charged"

    async with serving(worker, transport, NAMES, blocked_after=LIMIT) as desk:
        await desk.send_step("charge", run_id="run-7", attempt=2)
        assert (await desk.result()).status is ResultStatus.COMPLETED
        await eventually(lambda: named(lines, "event_loop_free"))
    (blocked,) = named(lines, "event_loop_blocked")
    line = charge.__code__.co_firstlineno + 2
    path = Path(__file__).relative_to(Path.cwd())
    place, _, source = blocked.pop("at").partition(": ")
    assert place == f"{path}:{line} in {charge.__qualname__}"
    assert source.startswith("time.sleep(LONG)")
    assert "plain `def`" in blocked.pop("hint")
    assert LIMIT.total_seconds() <= blocked.pop("seconds") < LONG
    subject = {"step": "charge", "run_id": "run-7", "attempt": 2}
    assert blocked == {"event": "event_loop_blocked", "log_level": "warning", **subject}
    (free,) = named(lines, "event_loop_free")
    assert LONG - 2 * LIMIT.total_seconds() < free.pop("seconds") < LONG + 5
    assert free == {"event": "event_loop_free", "log_level": "info", **subject}


async def test_the_line_is_that_of_the_application_not_of_the_library_that_it_calls(
    transport: MemoryTransport, lines: Lines
) -> None:
    worker = Worker()

    @worker.step("call")
    async def call() -> None:
        async def inside() -> None:
            subprocess.run(  # noqa: ASYNC221
                [sys.executable, "-c", f"import time; time.sleep({LONG})"], check=True
            )

        async with asyncio.TaskGroup() as group:
            group.create_task(inside())

    async with serving(worker, transport, NAMES, blocked_after=LIMIT) as desk:
        await desk.send_step("call", run_id="run-8")
        await desk.result()
        await eventually(lambda: named(lines, "event_loop_free"))
    (blocked,) = named(lines, "event_loop_blocked")
    assert "inside: subprocess.run(" in blocked["at"]
    assert (blocked["step"], blocked["run_id"]) == ("call", "run-8")


async def test_a_body_that_blocks_is_named_as_the_turn_of_its_run(
    transport: MemoryTransport, lines: Lines
) -> None:
    worker = Worker()

    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext) -> None:
        time.sleep(LONG)  # noqa: ASYNC251

    async with serving(
        worker, transport, NAMES, blocked_after=LIMIT, determinism=Determinism.OFF
    ) as desk:
        await desk.send_turn("flow", run_id="run-9")
        await desk.decision()
        await eventually(lambda: named(lines, "event_loop_free"))
    (blocked,) = named(lines, "event_loop_blocked")
    assert (blocked["workflow"], blocked["run_id"]) == ("flow", "run-9")
    assert "step" not in blocked
    assert "flow: time.sleep(LONG)" in blocked["at"]


async def test_code_that_is_of_no_step_is_named_by_its_line(
    transport: MemoryTransport, lines: Lines
) -> None:
    worker = Worker()

    @worker.step("idle")
    async def idle() -> None: ...

    async with serving(worker, transport, NAMES, blocked_after=LIMIT):
        await eventually(watches)
        time.sleep(LONG)  # noqa: ASYNC251
        await eventually(lambda: named(lines, "event_loop_free"))
    (blocked,) = named(lines, "event_loop_blocked")
    assert blocked["role"] == "worker"
    assert "time.sleep(LONG)" in blocked["at"]


async def test_a_line_that_blocks_again_and_again_is_told_once(
    transport: MemoryTransport, lines: Lines
) -> None:
    worker = Worker()

    @worker.step("again")
    async def again() -> None:
        time.sleep(0.5)  # noqa: ASYNC251

    @worker.step("other")
    async def other() -> None:
        time.sleep(0.5)  # noqa: ASYNC251

    async with serving(worker, transport, NAMES, blocked_after=LIMIT) as desk:
        for name in ("again", "again", "again", "other"):
            await desk.send_step(name)
            await desk.result()
        await eventually(lambda: len(named(lines, "event_loop_free")) == 2)
    assert [line["step"] for line in named(lines, "event_loop_blocked")] == ["again", "other"]


async def test_nobody_is_blamed_for_many_short_callbacks(
    transport: MemoryTransport, lines: Lines
) -> None:
    worker = Worker()

    @worker.step("busy")
    async def busy() -> None:
        for _ in range(100):
            asyncio.get_running_loop().call_soon(time.sleep, 0.01)
        await asyncio.sleep(0)

    async with serving(worker, transport, NAMES, blocked_after=LIMIT) as desk:
        await desk.send_step("busy")
        await desk.result()
    assert not named(lines, "event_loop_blocked")


async def test_steps_in_threads_block_nothing_and_the_watch_ends_with_the_worker(
    transport: MemoryTransport, lines: Lines
) -> None:
    worker = Worker()

    @worker.step("plain")
    def plain() -> None:
        time.sleep(0.5)

    async with serving(worker, transport, NAMES, blocked_after=LIMIT) as desk:
        await desk.send_step("plain")
        await desk.result()
        assert [each.daemon for each in watches()] == [True]
    assert not watches()
    assert not named(lines, "event_loop_blocked")


async def test_without_a_limit_nobody_watches(transport: MemoryTransport) -> None:
    worker = Worker()

    @worker.step("quick")
    async def quick() -> None: ...

    async with serving(worker, transport, NAMES, blocked_after=None) as desk:
        await desk.send_step("quick")
        await desk.result()
        assert not watches()
