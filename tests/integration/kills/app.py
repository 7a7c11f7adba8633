"""Workflows whose steps tell an outside journal what really happened, and a way to die anywhere.

`KILL_POINT` names the point, `KILL_AT` the how-many-eth passage of it that is the last one.
"""

import asyncio
import json
import os
import signal
from dataclasses import dataclass
from datetime import timedelta

from durable_worker import StepContext, Worker, WorkflowContext

worker = Worker()

_passages = 0


def die_here(point: str) -> None:
    """SIGKILL this process if `point` is the one, at the passage chosen by the test."""
    global _passages  # noqa: PLW0603 - one process, one countdown
    if os.environ.get("KILL_POINT") == point:
        _passages += 1
        if _passages >= int(os.environ["KILL_AT"]):
            os.kill(os.getpid(), signal.SIGKILL)


def journal(what: str, attempt: str) -> None:
    """`attempt` is `<step id>:<attempt>`."""
    entry = {"what": what, "attempt": attempt, "pid": os.getpid()}
    with open(os.environ["KILL_JOURNAL"], "ab") as file:
        file.write(json.dumps(entry).encode() + b"\n")


@dataclass
class Part:
    run: str
    number: int


@worker.step("kills.work")
async def work(part: Part, ctx: StepContext) -> int:
    attempt = f"{ctx.step_id}:{ctx.attempt}"
    journal("start", attempt)
    await asyncio.sleep(0.005)
    die_here("step")
    await asyncio.sleep(0.005)
    journal("end", attempt)
    return part.number


@worker.workflow("kills.child")
async def child(ctx: WorkflowContext, run: str) -> int:
    die_here("turn")
    return await ctx.step(work, Part(run, 100))


@worker.workflow("kills.flow")
async def flow(ctx: WorkflowContext, run: str) -> list[int]:
    die_here("turn")
    first = await ctx.step(work, Part(run, 0))
    die_here("turn")
    fan = await asyncio.gather(*(ctx.step(work, Part(run, n)) for n in (1, 2, 3)))
    await ctx.sleep(timedelta(milliseconds=50))
    try:
        await ctx.wait_signal(f"go:{run}", timeout=timedelta(milliseconds=20))
    except TimeoutError:
        die_here("turn")
    last = await ctx.child(child, run)
    return [first, *fan, last]


EXPECTED = [0, 1, 2, 3, 100]
