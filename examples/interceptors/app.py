"""Three interceptors around an order: one policy, one audit trail, one stopwatch.

python examples/interceptors/demo.py
durable-worker dev examples/interceptors/app.py:worker
"""

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec

from durable_worker import DurableError, Worker, WorkflowContext
from durable_worker.interceptors import (
    Interceptor,
    Operation,
    Proceed,
    StepExecution,
    StepOperation,
)


class Patience(Interceptor):
    """House rules: no step is waited for without end, each is tried at least three times."""

    async def operation(self, call: Operation, proceed: Proceed[Operation, Any], /) -> Any:
        if isinstance(call, StepOperation):
            call = call.replace(
                timeout=call.timeout or timedelta(minutes=10), retries=call.retries or 2
            )
        return await proceed(call)


class Audit(Interceptor):
    """What each run asked for and what came of it, once: replays are silent."""

    async def operation(self, call: Operation, proceed: Proceed[Operation, Any], /) -> Any:
        log = call.context.logger.bind(operation=str(call))
        log.info("asked")
        try:
            outcome = await proceed(call)
        except DurableError as error:
            log.warning("refused", reason=error.code)
            raise
        log.info("answered")
        return outcome

    def immediate(self, call: Operation, proceed: Callable[[Operation], Any], /) -> Any:
        outcome = proceed(call)
        call.context.logger.info("decided", operation=str(call))
        return outcome


class Stopwatch(Interceptor):
    """How long each attempt took, in the events of its result. Outside of runs: the real clock."""

    async def step(self, call: StepExecution, proceed: Proceed[StepExecution, Any], /) -> Any:
        started = time.perf_counter()
        try:
            return await proceed(call)
        finally:
            call.context.info("timed", seconds=round(time.perf_counter() - started, 3))


worker = Worker(interceptors=[Patience(), Audit(), Stopwatch()])


class Order(msgspec.Struct):
    id: str
    cents: int


@worker.step("payments.charge")
async def charge(order: Order) -> str:
    return f"charge-{order.id}"


@worker.step("parcels.book")
def book(order: Order) -> str:
    return f"NL-{order.id}"


@worker.workflow("order")
async def order(ctx: WorkflowContext, order: Order) -> list[str]:
    ctx.set_event("state", "charging")
    reference = await ctx.step(charge, order)
    await ctx.sleep(0.1)
    return [reference, await ctx.step(book, order)]
