"""The Python side of the interop tests: steps, and workflows that are driven by their operator."""

import asyncio
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from durable_worker import (
    ChildFailedError,
    FatalError,
    Retry,
    StepContext,
    StepFailedError,
    Worker,
    WorkflowContext,
)
from tests.interop.journal import journal
from tests.interop.lifeline import end_with_the_session

worker = Worker()

end_with_the_session()


@dataclass
class Pair:
    a: int
    b: int


@dataclass
class Part:
    run: str
    number: int


@dataclass
class Slow:
    seconds: float
    beat_every: float


# Steps


@worker.step("py.add")
async def add(pair: Pair) -> int:
    return pair.a + pair.b


@worker.step("py.flaky")
async def flaky(failures: int, ctx: StepContext) -> dict[str, Any]:
    journal("start", f"{ctx.step_id}:{ctx.attempt}")
    if ctx.attempt <= failures:
        raise ConnectionError(f"attempt {ctx.attempt} did not get through")
    return {"attempt": ctx.attempt, "stepId": ctx.step_id}


_seen: set[str] = set()


@worker.step("py.second-try")
async def second_try(key: str, ctx: StepContext) -> str:
    """Fails when it is first called with a key."""
    if key not in _seen:
        _seen.add(key)
        raise ConnectionError("did not get through")
    return ctx.step_id


@worker.step("py.fatal")
async def fatal(card: str, ctx: StepContext) -> None:
    journal("start", f"{ctx.step_id}:{ctx.attempt}")
    raise FatalError(f"card {card} was declined", code="declined", details={"card": card})


@worker.step("py.talkative")
async def talkative(rows: int, ctx: StepContext) -> int:
    ctx.info("reading", rows=rows)
    async with ctx.sub_process("upload") as upload:
        upload.phase("compress")
    ctx.warn("slow disk")
    return rows


@worker.step("py.told")
async def told(ctx: StepContext) -> Mapping[str, Any]:
    return {"traceparent": ctx.traceparent, "context": ctx.context}


@worker.step("py.slow")
async def slow(task: Slow, ctx: StepContext) -> int:
    journal("start", f"{ctx.step_id}:{ctx.attempt}")
    until = asyncio.get_running_loop().time() + task.seconds
    while asyncio.get_running_loop().time() < until:
        await asyncio.sleep(task.beat_every)
        ctx.heartbeat()
    return ctx.attempt


@worker.step("py.falls-silent")
async def falls_silent(seconds: float, ctx: StepContext) -> int:
    """Says nothing at its first attempt for longer than anybody waits."""
    if ctx.attempt == 1:
        await asyncio.sleep(seconds)
    return ctx.attempt


@worker.step("py.until-cancelled")
async def until_cancelled(key: str, ctx: StepContext) -> str:
    journal("start", key)
    while not ctx.cancelled:  # noqa: ASYNC110 - a step is told by nothing else
        await asyncio.sleep(0.02)
    journal("cancelled", key)
    return "stopped"


@worker.step("py.work")
async def work(part: Part, ctx: StepContext) -> int:
    """Takes longer for the parts that the tests want to kill in the middle."""
    attempt = f"{ctx.step_id}:{ctx.attempt}"
    journal("start", attempt)
    await asyncio.sleep(0.5 if part.number == 9 else 0.005)
    journal("end", attempt)
    return part.number


# Workflows


@worker.workflow("py.sum")
async def sum_up(ctx: WorkflowContext, pair: Pair) -> int:
    total = await ctx.step(add, pair)
    return await ctx.step("ts.double", total, returns=int)


@worker.workflow("py.fan")
async def fan(ctx: WorkflowContext, width: int) -> list[int]:
    return await asyncio.gather(*(ctx.step(add, Pair(n, 1)) for n in range(width)))


@worker.workflow("py.sleeper")
async def sleeper(ctx: WorkflowContext, ms: int) -> float:
    before = ctx.now()
    await ctx.sleep(timedelta(milliseconds=ms))
    return (ctx.now() - before).total_seconds()


@worker.workflow("py.retries")
async def retries(ctx: WorkflowContext, key: str) -> str:
    policy = Retry(attempts=3, initial=timedelta(milliseconds=50))
    return await ctx.step(second_try, key, retries=policy)


@worker.workflow("py.catches-step")
async def catches_step(ctx: WorkflowContext, card: str) -> dict[str, Any]:
    try:
        await ctx.step(fatal, card)
    except StepFailedError as error:
        return {"message": error.message, "code": error.code, "details": error.details}
    return {}


@worker.workflow("py.signalled")
async def signalled(ctx: WorkflowContext, name: str) -> Any:
    await ctx.sleep(timedelta(milliseconds=200))
    return await ctx.wait_signal(name)


@worker.workflow("py.patient")
async def patient(ctx: WorkflowContext, name: str) -> str:
    try:
        await ctx.wait_signal(name, timeout=timedelta(milliseconds=300))
    except TimeoutError:
        return "nobody called"
    return "called"


@worker.workflow("py.parent")
async def parent(ctx: WorkflowContext, value: int) -> int:
    return await ctx.child("ts.child", value, returns=int) + 1


@worker.workflow("py.child")
async def child(ctx: WorkflowContext, pair: Pair) -> int:
    return await ctx.step(add, pair)


@worker.workflow("py.failing-child")
async def failing_child(ctx: WorkflowContext, card: str) -> None:
    await ctx.step(fatal, card)


@worker.workflow("py.catches-child")
async def catches_child(ctx: WorkflowContext, customer: str) -> dict[str, Any]:
    try:
        await ctx.child("ts.failing-child", customer)
    except ChildFailedError as error:
        return {"message": error.message, "code": error.code}
    return {}


@worker.workflow("py.stable")
async def stable(ctx: WorkflowContext, key: str) -> dict[str, str]:
    """Tells the journal at every passage what it saw: the same each time, if it is stable."""
    token = ctx.side_effect(lambda: uuid.uuid4().hex, returns=str)
    now = ctx.now().isoformat()
    journal("passage", f"{key} {token} {now}")
    await ctx.step(add, Pair(1, 1))
    journal("passage", f"{key} {token} {now}")
    await ctx.sleep(timedelta(milliseconds=20))
    await ctx.step("ts.double", 1)
    return {"token": token, "now": now}


@worker.workflow("py.cancellable")
async def cancellable(ctx: WorkflowContext, key: str) -> str:
    return await ctx.step(until_cancelled, key)


@worker.workflow("py.small")
async def small(ctx: WorkflowContext, part: Part) -> int:
    return await ctx.step(work, part)


@worker.workflow("py.mixed")
async def mixed(ctx: WorkflowContext, run: str) -> list[int]:
    first = await ctx.step(work, Part(run, 0))
    wide = await asyncio.gather(*(ctx.step(work, Part(run, n)) for n in (1, 2, 3)))
    await ctx.sleep(timedelta(milliseconds=50))
    other = await ctx.step("ts.work", Part(run, 4), returns=int)
    last = await ctx.child("ts.small", Part(run, 5), returns=int)
    return [first, *wide, other, last]


@worker.workflow("py.slow-turn")
async def slow_turn(ctx: WorkflowContext, run: str) -> int:
    """Its local step holds the turn open long enough to be killed in the middle."""
    return await ctx.local_step(work, Part(run, 9))


@worker.workflow("py.long-turn")
async def long_turn(ctx: WorkflowContext, task: Slow) -> int:
    return await ctx.local_step(slow, task)


@worker.workflow("py.reports")
async def reports(ctx: WorkflowContext, name: str) -> str:
    ctx.set_event("progress", {"done": 1, "of": 2})
    await ctx.wait_signal(name)
    ctx.set_event("progress", {"done": 2, "of": 2})
    await ctx.wait_signal(f"{name}:end")
    return "reported"


@worker.workflow("py.called-back")
async def called_back(ctx: WorkflowContext) -> dict[str, Any]:
    """Lets others know where to call back, then waits."""
    hook = ctx.webhook()
    ctx.set_event("token", hook.token)
    await ctx.step(add, Pair(1, 1))
    return {"token": hook.token, "payload": await hook}


@worker.workflow("py.updated")
async def updated(ctx: WorkflowContext) -> Any:
    return await ctx.wait_update("address")


@worker.workflow("py.subscriber")
async def subscriber(ctx: WorkflowContext, order: str) -> Any:
    return await ctx.wait_event("order paid", match={"order": order})
