"""Calls that must not type-check: each ignore here is an error if it were not needed."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from durable_worker import StepContext, Undo, Worker, WorkflowContext
from durable_worker.client import Client, RunHandle
from durable_worker.interceptors import (
    BodyExecution,
    Interceptor,
    Operation,
    Proceed,
    SleepOperation,
    StepExecution,
    StepOperation,
    TurnExecution,
)
from durable_worker.protocol.commands import WorkflowDecision


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


class Wrong(Interceptor):
    async def step(self, call: StepExecution, proceed: Proceed[StepExecution, Any], /) -> Any:
        await proceed(call.context)  # type: ignore[arg-type]
        call.replace(inputs=1)  # type: ignore[call-arg]
        call.input = 1  # type: ignore[misc]

    async def turn(
        self, call: TurnExecution, proceed: Proceed[TurnExecution, WorkflowDecision], /
    ) -> WorkflowDecision:
        await proceed()  # type: ignore[call-arg]
        output: int = await proceed(call)  # type: ignore[assignment]
        del output
        return await proceed(call)

    async def body(self, call: BodyExecution, proceed: Proceed[BodyExecution, Any], /) -> Any:
        await proceed(call.context)  # type: ignore[arg-type]

    async def operation(self, call: Operation, proceed: Proceed[Operation, Any], /) -> Any:
        call.replace(retries=1)  # type: ignore[call-arg]
        if isinstance(call, StepOperation):
            call.replace(retries="3")  # type: ignore[arg-type]
            call.replace(timeout="1h")  # type: ignore[arg-type]
            call.retries = None  # type: ignore[misc]
        if isinstance(call, SleepOperation):
            call.replace(seconds=timedelta(1))  # type: ignore[arg-type]
        return proceed(call).output  # type: ignore[attr-defined]


class WrongSignatures(Interceptor):
    async def step(self, call: StepExecution) -> Any: ...  # type: ignore[override]

    async def turn(  # type: ignore[override]
        self, call: TurnExecution, proceed: Proceed[TurnExecution, WorkflowDecision], /
    ) -> str: ...

    async def operation(  # type: ignore[override]
        self, call: StepOperation, proceed: Proceed[Operation, Any], /
    ) -> Any: ...

    def immediate(  # type: ignore[override]
        self, call: Operation, proceed: Callable[[int], Any], /
    ) -> Any: ...


Worker(interceptors=[Wrong])  # type: ignore[list-item]
Worker(interceptors=Wrong())  # type: ignore[arg-type]
Worker([Wrong()])  # type: ignore[call-arg]


async def ask(client: Client, order: Order) -> None:
    await client.start(checkout, "o-1")  # type: ignore[arg-type]
    await client.start(checkout, order, reuse="replace")  # type: ignore[call-overload]
    await client.start(shipping, order, returns=str)  # type: ignore[call-overload]
    handle = await client.start(shipping, order)
    number: int = await handle.result()  # type: ignore[assignment]
    other: RunHandle[int] = await client.get("o-1", shipping)  # type: ignore[arg-type]
    await client.get("o-1", 5)  # type: ignore[call-overload]
    await handle.result(timeout=5)  # type: ignore[arg-type]
    text: str = await handle.query("state", returns=int)  # type: ignore[arg-type]
    for _ in handle.events():  # type: ignore[attr-defined]
        print(number, other, text)
