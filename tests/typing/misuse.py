"""Calls that must not type-check: each ignore here is an error if it were not needed."""

from datetime import timedelta

from durable_worker import StepContext, Undo, Worker, WorkflowContext


class Order:
    id: str


worker = Worker()


@worker.step("charge")
async def charge(order: Order, ctx: StepContext) -> int: ...


@worker.step("count")
def count(order: Order) -> float: ...


@worker.step("refund")
async def refund(undo: Undo[Order, int]) -> None: ...


@worker.step("put-back")
async def put_back(undo: Undo[Order, str]) -> None: ...


@worker.workflow("shipping")
async def shipping(ctx: WorkflowContext, order: Order) -> str: ...


async def on_change(changed: Order) -> None: ...


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
    await ctx.wait_update("go", validate=charge, returns=int)  # type: ignore[arg-type]
    ctx.on_query("state", 5)  # type: ignore[arg-type]
    await ctx.wait_event("go", match=[1])  # type: ignore[call-overload]
    await ctx.webhook(int)  # type: ignore[call-overload]
    answer: str = await ctx.webhook(returns=int)  # type: ignore[arg-type]
    await ctx.set_event("state", 1)  # type: ignore[misc, func-returns-value]
    await ctx.step(charge, order, timeout="1h")  # type: ignore[call-overload]
    await ctx.step(charge, order, compensate=put_back)  # type: ignore[misc]
    await ctx.step(charge, order, compensate=charge)  # type: ignore[arg-type]
    await ctx.step(charge, order, compensation=refund)  # type: ignore[call-overload]
    ctx.saga().add(charge, 5)  # type: ignore[arg-type]
    with ctx.saga():  # type: ignore[attr-defined]
        pass
    ctx.start_child(shipping, {"order": 1})  # type: ignore[arg-type]
    parcel: int = await ctx.start_child(shipping, order)  # type: ignore[arg-type]
    done: int = await ctx.task("approve", returns=str)  # type: ignore[arg-type]
    await ctx.patched("p")  # type: ignore[misc]
    ctx.patched(5)  # type: ignore[arg-type]
    await ctx.breakpoint(5)  # type: ignore[arg-type]
    ctx.on_signal("change", on_change, returns=str)  # type: ignore[arg-type]
    ctx.upsert_search_attributes(["a"])  # type: ignore[arg-type]
    await ctx.call_entity("counter")  # type: ignore[call-arg]
    _ = ctx.step(charge, order).reference  # type: ignore[attr-defined]
    del number, tracking, answer, parcel, done


worker.step("x", timeout="1h")  # type: ignore[arg-type]
worker.step("x", retries=1.5)  # type: ignore[arg-type]
worker.workflow("x", version=1)  # type: ignore[arg-type]
