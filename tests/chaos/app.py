"""Workflows of every shape, whose steps tell a journal outside what really happened.

Each line of the journal is one write to a file opened for appending, on the disk when it returns:
what a killed process wrote before its death is there, whole. Times are of the system's monotonic
clock, which all processes share and no fault moves.
"""

import asyncio
import json
import os
import time
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

from durable_worker import FatalError, Retry, StepContext, Undo, Worker, WorkflowContext
from durable_worker import current_step as step_here

JOURNAL, GATE = "CHAOS_JOURNAL", "CHAOS_GATE"

worker = Worker()


@dataclass
class Job:
    """`value` comes back in the mark of the step; `seconds` is how long it takes."""

    value: int
    seconds: float = 0.02


@dataclass
class Mark:
    """What a step returns: `token` is new with each execution, so a result tells which it was."""

    value: int
    token: str


@dataclass
class Order:
    """What a workflow is told: its run, the value of its first step, how long steps take."""

    run: str
    first: int
    seconds: float = 0.02


@dataclass
class Receipt:
    """The values in the order of the body, with the tokens that they came with."""

    values: list[int]
    tokens: list[str]
    note: str = ""


def receipt(*marks: Mark, note: str = "") -> Receipt:
    return Receipt([each.value for each in marks], [each.token for each in marks], note)


def tell(what: str, ctx: StepContext, **more: object) -> None:
    entry = {
        "what": what,
        "run": ctx.run_id,
        "step": ctx.step_id,
        "attempt": ctx.attempt,
        "name": ctx.name,
        "pid": os.getpid(),
        "at": time.monotonic(),
        **more,
    }
    file = os.open(os.environ[JOURNAL], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, json.dumps(entry).encode() + b"\n")
        os.fdatasync(file)
    finally:
        os.close(file)


def take_effect(ctx: StepContext, value: int) -> Mark:
    """The moment that cannot be taken back."""
    mark = Mark(value, uuid4().hex)
    tell("effect", ctx, token=mark.token, value=value)
    return mark


@worker.step("chaos.work")
async def work(job: Job, ctx: StepContext) -> Mark:
    tell("start", ctx)
    await asyncio.sleep(job.seconds)
    mark = take_effect(ctx, job.value)
    await asyncio.sleep(0.005)
    tell("end", ctx)
    return mark


@worker.step("chaos.thread")
def thread(job: Job) -> Mark:
    ctx = step_here()
    tell("start", ctx)
    time.sleep(job.seconds)
    mark = take_effect(ctx, job.value)
    tell("end", ctx)
    return mark


@worker.step("chaos.flaky", retries=Retry(attempts=4, initial=timedelta(milliseconds=50)))
async def flaky(job: Job, ctx: StepContext) -> Mark:
    """Fails twice."""
    tell("start", ctx)
    await asyncio.sleep(job.seconds)
    if ctx.attempt < 3:
        tell("failed", ctx)
        raise ConnectionError(f"attempt {ctx.attempt} finds nobody at home")
    mark = take_effect(ctx, job.value)
    tell("end", ctx)
    return mark


@worker.step("chaos.note")
async def note(job: Job, ctx: StepContext) -> Mark:
    """Runs inside a turn."""
    tell("start", ctx, is_local=True)
    mark = take_effect(ctx, job.value)
    tell("end", ctx)
    return mark


@worker.step("chaos.undo", retries=5)
async def undo(done: Undo[Job, Mark], ctx: StepContext) -> Mark:
    tell("start", ctx)
    await asyncio.sleep(0.01)
    mark = take_effect(ctx, done.output.value)
    tell("end", ctx)
    return mark


@worker.step("chaos.gate")
async def gate(job: Job, ctx: StepContext) -> Mark:
    """Takes until the gate is opened."""
    tell("start", ctx)
    while not os.path.exists(os.environ[GATE]):  # noqa: ASYNC110, ASYNC240
        await asyncio.sleep(0.05)
    mark = take_effect(ctx, job.value)
    tell("end", ctx)
    return mark


@worker.workflow("chaos.sequence")
async def sequence(ctx: WorkflowContext, order: Order) -> Receipt:
    first = await ctx.step(work, Job(order.first, order.seconds))
    second = await ctx.step(flaky, Job(order.first + 1))
    third = await ctx.local_step(note, Job(order.first + 2))
    fourth = await ctx.step(thread, Job(order.first + 3, order.seconds))
    return receipt(first, second, third, fourth)


@worker.workflow("chaos.fan")
async def fan(ctx: WorkflowContext, order: Order) -> Receipt:
    jobs = [Job(order.first + n, order.seconds * (1 + n % 3)) for n in range(4)]
    pause = asyncio.ensure_future(ctx.sleep(timedelta(milliseconds=80)))
    marks = await asyncio.gather(*(ctx.step(work, job) for job in jobs))
    await pause
    last = await ctx.step(thread, Job(order.first + 4))
    return receipt(*marks, last)


@worker.workflow("chaos.family")
async def family(ctx: WorkflowContext, order: Order) -> Receipt:
    mine = await ctx.step(work, Job(order.first, order.seconds))
    children = await asyncio.gather(
        ctx.child(fan, Order(order.run, order.first + 10, order.seconds)),
        ctx.child(sequence, Order(order.run, order.first + 20, order.seconds)),
    )
    return Receipt(
        [mine.value, *(value for each in children for value in each.values)],
        [mine.token, *(token for each in children for token in each.tokens)],
    )


@worker.workflow("chaos.timers")
async def timers(ctx: WorkflowContext, order: Order) -> Receipt:
    await ctx.sleep(timedelta(milliseconds=150))
    first = await ctx.step(work, Job(order.first, order.seconds))
    await asyncio.sleep(0.1)
    second, _ = await asyncio.gather(
        ctx.step(work, Job(order.first + 1, order.seconds)), asyncio.sleep(0.1)
    )
    return receipt(first, second)


@worker.workflow("chaos.signal")
async def signalled(ctx: WorkflowContext, order: Order) -> Receipt:
    first = await ctx.step(work, Job(order.first, order.seconds))
    told = await ctx.wait_signal(f"go:{order.run}", returns=int)
    second = await ctx.step(work, Job(told, order.seconds))
    return receipt(first, second)


@worker.workflow("chaos.patience")
async def patience(ctx: WorkflowContext, order: Order) -> Receipt:
    """Whether the signal comes in time is nobody's promise; that the body goes one way is."""
    try:
        await ctx.wait_signal(
            f"maybe:{order.run}", returns=int, timeout=timedelta(milliseconds=300)
        )
    except TimeoutError:
        return receipt(await ctx.step(work, Job(order.first)), note="too late")
    return receipt(await ctx.step(thread, Job(order.first)), note="in time")


@worker.workflow("chaos.saga")
async def saga(ctx: WorkflowContext, order: Order) -> Receipt:
    async with ctx.saga() as undoing:
        for n in range(2):
            job = Job(order.first + n, order.seconds)
            await undoing.step(work, job, compensate=undo)
        raise FatalError("sold out", code="sold-out")


@worker.workflow("chaos.cancelled")
async def cancelled(ctx: WorkflowContext, order: Order) -> Receipt:
    mark = await ctx.step(work, Job(order.first, order.seconds), compensate=undo)
    await ctx.wait_signal(f"never:{order.run}")
    return receipt(mark)


@worker.workflow("chaos.long")
async def long(ctx: WorkflowContext, order: Order) -> Receipt:
    marks = await asyncio.gather(
        ctx.step(work, Job(order.first, order.seconds)),
        ctx.step(thread, Job(order.first + 1, order.seconds / 2)),
    )
    return receipt(*marks)


@worker.workflow("chaos.gated")
async def gated(ctx: WorkflowContext, order: Order) -> Receipt:
    return receipt(await ctx.step(gate, Job(order.first)))
