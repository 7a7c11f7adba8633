"""A worker whose runs wait, and a few that do not."""

import time
from datetime import timedelta

from durable_worker import Worker, WorkflowContext

worker = Worker()


@worker.step("load.reserve")
async def reserve(order: str) -> dict[str, str]:
    return {"order": order, "reserved": "two of them, until somebody says otherwise"}


@worker.step("load.began")
async def began(_: str) -> float:
    """By the clock that all processes of a machine share."""
    return time.monotonic()


@worker.workflow("load.approval")
async def approval(ctx: WorkflowContext, order: str) -> str:
    await ctx.step(reserve, order)
    return await ctx.wait_signal(f"approve:{order}", returns=str)


@worker.workflow("load.reminder")
async def reminder(ctx: WorkflowContext, order: str) -> str:
    await ctx.step(reserve, order)
    await ctx.sleep(timedelta(days=30))
    return order


@worker.workflow("load.offer")
async def offer(ctx: WorkflowContext, order: str) -> str:
    await ctx.step(reserve, order)
    return await ctx.wait_signal(f"accept:{order}", returns=str, timeout=timedelta(days=7))


@worker.workflow("load.stamp")
async def stamp(ctx: WorkflowContext, order: str) -> float:
    return await ctx.step(began, order)


@worker.workflow("load.nap")
async def nap(ctx: WorkflowContext, milliseconds: int) -> None:
    await ctx.sleep(timedelta(milliseconds=milliseconds))
