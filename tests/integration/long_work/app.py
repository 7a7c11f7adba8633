"""Work that takes longer than the broker lets a message be unanswered.

Each worker here serves names of its own, so that a test can kill one and leave the others alone.
"""

import asyncio
import json
import os
import time

from durable_worker import StepContext, Worker, WorkflowContext

JOURNAL = "LONG_WORK_JOURNAL"


def note(what: str, key: str) -> None:
    entry = {"what": what, "key": key, "pid": os.getpid(), "at": time.time()}
    with open(os.environ[JOURNAL], "ab") as file:
        file.write(json.dumps(entry).encode() + b"\n")


async def take(seconds: float, key: str) -> float:
    note("start", key)
    await asyncio.sleep(seconds)
    note("end", key)
    return seconds


steady = Worker()


@steady.step("long.step")
async def step(seconds: float, ctx: StepContext) -> float:
    return await take(seconds, ctx.step_id)


@steady.step("long.thread")
def thread(seconds: float, ctx: StepContext) -> float:
    note("start", ctx.step_id)
    time.sleep(seconds)
    note("end", ctx.step_id)
    return seconds


@steady.workflow("long.steps")
async def steps(ctx: WorkflowContext, seconds: float) -> list[float]:
    return [*await asyncio.gather(ctx.step(step, seconds), ctx.step(thread, seconds))]


@steady.workflow("long.turn")
async def turn(ctx: WorkflowContext, seconds: float) -> float:
    return await ctx.local_step(step, seconds)


narrow = Worker()


@narrow.step("long.one")
async def one(seconds: float, ctx: StepContext) -> float:
    return await take(seconds, ctx.step_id)


@narrow.step("long.other")
async def other(seconds: float, ctx: StepContext) -> float:
    return await take(seconds, ctx.step_id)


@narrow.workflow("long.queue")
async def queue(ctx: WorkflowContext, seconds: float) -> list[float]:
    """One of its steps is with a worker that has one slot, and waits for the other one's end."""
    return [*await asyncio.gather(ctx.step(one, seconds), ctx.step(other, seconds))]


mortal = Worker()


@mortal.step("long.mortal")
async def inherited(seconds: float, ctx: StepContext) -> int:
    await take(seconds, ctx.step_id)
    return os.getpid()


@mortal.workflow("long.inheritance")
async def inheritance(ctx: WorkflowContext, seconds: float) -> int:
    return await ctx.step(inherited, seconds)


connected = Worker()


@connected.step("long.connected")
async def kept(seconds: float, ctx: StepContext) -> int:
    await take(seconds, ctx.step_id)
    return os.getpid()


@connected.workflow("long.connection")
async def connection(ctx: WorkflowContext, seconds: float) -> int:
    return await ctx.step(kept, seconds)
