"""Workflows that clients start and ask in these tests."""

import asyncio

import anyio

from durable_worker import FatalError, StepContext, Worker, WorkflowContext

worker = Worker()


@worker.step("double")
async def double(value: int) -> int:
    if value < 0:
        raise FatalError("negative", code="negative")
    return value * 2


@worker.step("attend")
async def attend(_: str, ctx: StepContext) -> None:
    while True:
        ctx.raise_if_cancelled()
        await anyio.sleep(0.005)


@worker.workflow("doubling")
async def doubling(ctx: WorkflowContext, value: int) -> int:
    return await ctx.step(double, value)


@worker.workflow("asking")
async def asking(ctx: WorkflowContext, question: str) -> int:
    return await ctx.wait_signal(question, returns=int)


@worker.workflow("stages")
async def stages(ctx: WorkflowContext, count: int) -> int:
    """One step for each number that comes."""
    total = 0
    for _ in range(count):
        number = await ctx.wait_update("next", validate=lambda n: n < 100, returns=int)
        total += await ctx.step(double, number)
    return total


@worker.workflow("laps")
async def laps(ctx: WorkflowContext, state: dict[str, list[int]]) -> list[int]:
    """Takes two numbers in each lap, until there are enough, and begins anew."""
    for _ in range(2):
        number = await ctx.wait_update("next", returns=int)
        state["seen"].append(await ctx.step(double, number))
    if len(state["seen"]) < state["enough"][0]:
        ctx.continue_as_new(state)
    return state["seen"]


@worker.workflow("parent of laps")
async def parent_of_laps(ctx: WorkflowContext, state: dict[str, list[int]]) -> list[int]:
    child = ctx.start_child(laps, state)
    ctx.set_event("child", child.run_id)
    return await child


_broken: dict[str, bool] = {}


def break_down(run_id: str) -> None:
    """Until `mend`, the code fails this run."""
    _broken[run_id] = True


def mend(run_id: str) -> None:
    _broken[run_id] = False


@worker.step("charge")
async def charge(amount: int, ctx: StepContext) -> str:
    if _broken[ctx.run_id]:
        raise FatalError("no money", code="no-money")
    return f"{amount} at attempt {ctx.attempt}"


@worker.workflow("charging")
async def charging(ctx: WorkflowContext, amount: int) -> str:
    return await ctx.step(charge, amount)


@worker.workflow("forgetful")
async def forgetful(ctx: WorkflowContext) -> str:
    """Waits for what cannot happen, which is the code's fault."""
    if _broken[ctx.run_id]:
        await asyncio.Event().wait()
    return "mended"


@worker.workflow("failing of itself")
async def failing_of_itself(ctx: WorkflowContext) -> str:
    doubled = await ctx.step(double, 21)
    if _broken[ctx.run_id]:
        raise ValueError("a defect")
    return f"{doubled}"


@worker.workflow("resting")
async def resting(ctx: WorkflowContext) -> str:
    await ctx.breakpoint("before it is too late")
    return "rested"


stopped: list[str] = []
"""Runs whose patient step was cancelled where it waits."""


@worker.step("patient")
async def patient(_: str, ctx: StepContext) -> None:
    try:
        await anyio.sleep_forever()
    finally:
        stopped.append(ctx.run_id)


@worker.workflow("impatient")
async def impatient(ctx: WorkflowContext) -> str:
    try:
        async with asyncio.timeout(0.3):
            await ctx.step(patient, "x")
    except TimeoutError:
        await ctx.wait_signal(f"go-{ctx.run_id}")
    return "given up"


@worker.workflow("filed")
async def filed(ctx: WorkflowContext, customer: str) -> str:
    ctx.upsert_search_attributes({"customer": customer, "stage": "waiting", "note": None})
    await ctx.wait_update("close")
    ctx.upsert_search_attributes({"stage": "closed"})
    return customer


@worker.workflow("attending")
async def attending(ctx: WorkflowContext) -> None:
    await ctx.step(attend, "x")


@worker.step("report")
async def report(count: int, ctx: StepContext) -> None:
    for number in range(count):
        ctx.info(f"line {number}", number=number)
    await anyio.sleep_forever()


@worker.workflow("reporting")
async def reporting(ctx: WorkflowContext, count: int) -> None:
    await ctx.wait_update("go")
    await ctx.step(report, count)
