"""Calls that must not type-check: each ignore here is an error if it were not needed."""

from datetime import timedelta

from durable_worker import StepContext, Worker, WorkflowContext


class Order:
    id: str


worker = Worker()


@worker.step("charge")
async def charge(order: Order, ctx: StepContext) -> int: ...


@worker.step("count")
def count(order: Order) -> float: ...


@worker.workflow("shipping")
async def shipping(ctx: WorkflowContext, order: Order) -> str: ...


@worker.workflow("checkout")
async def checkout(ctx: WorkflowContext, order: Order) -> None:
    await ctx.step(charge, "o-1")  # type: ignore[arg-type]
    await ctx.step(charge)  # type: ignore[arg-type]
    await ctx.step(count, 5)  # type: ignore[arg-type]
    number: str = await ctx.step(charge, order)  # type: ignore[arg-type]
    await ctx.step(charge, order, retries="3")  # type: ignore[call-overload]
    await ctx.child(shipping, {"order": 1})  # type: ignore[arg-type]
    tracking: int = await ctx.child(shipping, order)  # type: ignore[arg-type]
    await ctx.wait_signal(5)  # type: ignore[call-overload]
    await ctx.sleep("1h")  # type: ignore[arg-type]
    await ctx.wait_signal("go", timeout=timedelta(1), returns="Order")  # type: ignore[call-overload]
    await ctx.wait_update("go", returns="Order")  # type: ignore[call-overload]
    await ctx.wait_event("go", match=[1])  # type: ignore[call-overload]
    await ctx.webhook(int)  # type: ignore[call-overload]
    answer: str = await ctx.webhook(returns=int)  # type: ignore[arg-type]
    await ctx.set_event("state", 1)  # type: ignore[misc, func-returns-value]
    _ = ctx.step(charge, order).reference  # type: ignore[attr-defined]
    del number, tracking, answer


worker.step("x", retries=1.5)  # type: ignore[arg-type]
worker.workflow("x", version=1)  # type: ignore[arg-type]
