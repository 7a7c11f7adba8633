"""Calls that must type-check, with the types that come out."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, assert_type

from durable_worker import (
    ChildHandle,
    ExternalTask,
    Retry,
    StepContext,
    Undo,
    Webhook,
    Worker,
    WorkflowContext,
)
from durable_worker.asgi import AppClient
from durable_worker.client import Client, RunEvent, RunHandle
from durable_worker.embedded import Embedded
from durable_worker.interceptors import (
    BodyExecution,
    Interceptor,
    Operation,
    Proceed,
    SleepOperation,
    StepExecution,
    StepOperation,
    TurnExecution,
    WaitOperation,
)
from durable_worker.protocol.commands import WorkflowDecision
from durable_worker.protocol.runs import RunQuery, RunRecord


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


@worker.step("refund", timeout=timedelta(minutes=1))
async def refund(undo: Undo[Order, Charge], ctx: StepContext) -> None: ...


@worker.step("put-back")
def put_back(undo: Undo[Order, int]) -> None: ...


@worker.step("forget")
async def forget(undo: Undo[None, str]) -> None: ...


@worker.step("tell")
async def tell(order: Order) -> None: ...


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
    assert_type(
        await ctx.wait_update("approve", validate=lambda each: each.id != "", returns=Order), Order
    )
    ctx.on_query("state", lambda: {"order": order})
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
    assert_type(await ctx.step(charge, order, timeout=30, compensate=refund), Charge)
    assert_type(await ctx.step(reserve, order, retries=2, compensate=put_back), int)
    assert_type(await ctx.step(poll, compensate=forget), str)
    assert_type(await ctx.step(charge, order, compensate="refund-elsewhere"), Charge)
    assert_type(await ctx.step("pay", order, returns=Charge, compensate=refund), Charge)
    async with ctx.saga() as saga:
        assert_type(await saga.step(charge, order, compensate=refund, partition="eu"), Charge)
        assert_type(await saga.step("elsewhere", returns=Order), Order)
        saga.add(tell, order)
        saga.add("tell-elsewhere", {"order": 1})
    parcel = ctx.start_child(shipping, order)
    assert_type(parcel, ChildHandle[list[str]])
    assert_type(parcel.run_id, str)
    assert_type(await parcel, list[str])
    assert_type(await parcel.result(timeout=timedelta(days=1)), list[str])
    assert_type(ctx.start_child(cleanup), ChildHandle[None])
    assert_type(ctx.start_child("other", 5, returns=Order), ChildHandle[Order])
    assert_type(ctx.start_child("other"), ChildHandle[Any])
    handed_out = ctx.task("approve", returns=Order)
    assert_type(handed_out, ExternalTask[Order])
    assert_type(await handed_out.wait(timeout=60), Order)
    assert_type(ctx.patched("two-parcels"), bool)
    await ctx.breakpoint("before shipping")
    await ctx.breakpoint()

    async def on_change(changed: Order) -> None: ...

    ctx.on_signal("change", on_change, returns=Order).cancel()
    ctx.on_signal("change", lambda changed: print(changed.id), returns=Order)
    ctx.upsert_search_attributes({"customer": "c-1", "sizes": ["s"], "old": None})
    assert_type(await ctx.call_entity("counter", "c-1", "add", 1), Any)
    if ctx.patched("from-anew"):
        ctx.continue_as_new(order)
    # A decorated function stays a plain function.
    assert_type(await reserve(order), int)
    return "done"


class Around(Interceptor):
    async def step(self, call: StepExecution, proceed: Proceed[StepExecution, Any], /) -> Any:
        assert_type(call.context, StepContext)
        return await proceed(call.replace(input=[call.input]))

    async def turn(
        self, call: TurnExecution, proceed: Proceed[TurnExecution, WorkflowDecision], /
    ) -> WorkflowDecision:
        assert_type(await proceed(call), WorkflowDecision)
        return await proceed(call.replace(task=call.task))

    async def body(self, call: BodyExecution, proceed: Proceed[BodyExecution, Any], /) -> Any:
        call.context.logger.bind(version=call.context.version).info("begun")
        return await proceed(call.replace(input=1))

    async def operation(self, call: Operation, proceed: Proceed[Operation, Any], /) -> Any:
        match call:
            case StepOperation(retries=None):
                assert_type(call.timeout, float | None)
                return await proceed(call.replace(retries=3, timeout=timedelta(1), partition="eu"))
            case WaitOperation(method="wait_signal", timeout=None):
                return await proceed(call.replace(name=f"acme-{call.name}", timeout=60))
            case SleepOperation(seconds=seconds):
                return await proceed(call.replace(seconds=seconds / 2))
            case _:
                assert_type(call.is_replaying, bool)
                return None if call.method == "breakpoint" else await proceed(call)

    def immediate(self, call: Operation, proceed: Callable[[Operation], Any], /) -> Any:
        return proceed(call.replace(input={}) if call.method == "set_event" else call)


class OtherNames(Interceptor):
    async def step(self, attempt: StepExecution, rest: Proceed[StepExecution, Any]) -> Any:
        return await rest(attempt)


intercepted = Worker(interceptors=[Around(), OtherNames()])


async def ask(client: Client, order: Order) -> None:
    handle = await client.start(checkout, order, run_id="o-1", reuse="reject", tags=["vip"])
    assert_type(handle, RunHandle[str])
    assert_type(await handle.result(timeout=timedelta(seconds=5)), str)
    assert_type(await client.start("checkout", order, returns=Order), RunHandle[Order])
    assert_type(await client.start("checkout", {"id": 1}, reuse="terminate"), RunHandle[Any])
    assert_type(await client.get("o-1", checkout), RunHandle[str])
    assert_type(client.handle("o-1", checkout), RunHandle[str])
    assert_type(client.handle("o-1", returns=Order), RunHandle[Order])
    assert_type(client.handle("o-1"), RunHandle[Any])
    assert_type(await handle.query("state", returns=int), int)
    await handle.signal("go", order, signal_id="s-1")
    await handle.update("address", {"street": "x"})
    async for event in handle.events(history=True):
        assert_type(event, RunEvent)
    async for run in client.runs(RunQuery(workflow="checkout", limit=50)):
        assert_type(run, RunRecord)
    page = await client.page(after="x")
    assert_type(page.next, str | None)


durable = AppClient(lambda: Embedded(worker, database="x.db"))
