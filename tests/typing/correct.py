"""Calls that must type-check, with the types that come out."""

import asyncio
from datetime import timedelta
from typing import assert_type

from durable_worker import Retry, StepContext, Webhook, Worker, WorkflowContext


class Order:
    id: str


class Charge:
    reference: str


worker = Worker()


@worker.step("charge", retries=3)
async def charge(order: Order, ctx: StepContext) -> Charge: ...


@worker.step("reserve")
async def reserve(order: Order) -> int: ...


@worker.step("count")
def count(order: Order) -> float: ...


@worker.step("render")
def render(order: Order, ctx: StepContext) -> bytes: ...


@worker.step("poll")
async def poll() -> str: ...


@worker.step("tick")
async def tick(ctx: StepContext) -> str: ...


@worker.workflow("shipping")
async def shipping(ctx: WorkflowContext, order: Order) -> list[str]: ...


@worker.workflow("cleanup")
async def cleanup(ctx: WorkflowContext) -> None: ...


@worker.workflow("checkout", version="2")
async def checkout(ctx: WorkflowContext, order: Order) -> str:
    assert_type(await ctx.step(charge, order), Charge)
    assert_type(await ctx.step(reserve, order, retries=Retry(attempts=2)), int)
    assert_type(await ctx.step(count, order), float)
    assert_type(await ctx.step(render, order), bytes)
    assert_type(await ctx.step(poll), str)
    assert_type(await ctx.step(tick), str)
    assert_type(await ctx.step("elsewhere", {"a": 1}, returns=Charge), Charge)
    assert_type(await ctx.local_step(reserve, order), int)
    assert_type(await ctx.child(shipping, order), list[str])
    await ctx.child(cleanup)
    assert_type(await ctx.child("other", 5, returns=Order), Order)
    assert_type(await ctx.wait_signal("go", timeout=timedelta(days=1), returns=Order), Order)
    assert_type(await ctx.wait_update("approve", returns=Order), Order)
    assert_type(await ctx.wait_event("paid", match={"id": 1}, timeout=5, returns=Order), Order)
    hook = ctx.webhook(returns=Charge)
    assert_type(hook, Webhook[Charge])
    assert_type(hook.token, str)
    assert_type(await hook, Charge)
    assert_type(await hook.wait(timeout=timedelta(days=1)), Charge)
    ctx.set_event("state", {"charged": order})
    assert_type(ctx.side_effect(lambda: 5), int)
    both = await asyncio.gather(ctx.step(charge, order), ctx.step(reserve, order))
    assert_type(both, tuple[Charge, int])
    async with asyncio.TaskGroup() as group:
        task = group.create_task(ctx.step(poll))
    assert_type(task.result(), str)
    # A decorated function stays a plain function.
    assert_type(await reserve(order), int)
    return "done"
