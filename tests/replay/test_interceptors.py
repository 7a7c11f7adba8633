"""What interceptors see inside a run, and what they ask for there themselves."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

from durable_worker import (
    FatalError,
    Retry,
    StepFailedError,
    Worker,
    WorkflowContext,
)
from durable_worker.interceptors import (
    BodyExecution,
    Interceptor,
    Method,
    Operation,
    Proceed,
    StepOperation,
)
from durable_worker.protocol.commands import (
    ScheduleStep,
    StartTimer,
)
from tests.replay.intercepting import (
    Around,
    AroundImmediate,
    Next,
    called,
    decide,
    history,
    line_of,
)
from tests.replay.model import ModelOperator, finish, new_replay, take_turn


async def everything(ctx: WorkflowContext) -> None:
    async def handle(payload: object) -> None: ...

    ctx.on_signal("told", handle)
    ctx.now()
    ctx.uuid()
    ctx.random.random()
    ctx.side_effect(lambda: 1)
    ctx.set_event("state", "begun")
    ctx.patched("p")
    ctx.on_query("q", lambda: 1)
    child = ctx.start_child("child")
    hook, task = ctx.webhook(), ctx.task("task")
    await asyncio.gather(child, hook, task)
    await ctx.step("step")
    await ctx.local_step(short)
    await ctx.child("child")
    await ctx.sleep(1)
    await ctx.wait_signal("signal")
    await ctx.wait_update("update")
    await ctx.wait_event("event")
    await ctx.breakpoint()
    async with ctx.saga() as saga:
        await saga.step("do", compensate="undo")
        raise StepFailedError("made-up", "no", seq=0)


async def short() -> str: ...


def test_every_operation_of_the_context_passes_through_them() -> None:
    seen: list[Method] = []

    class Seeing(Interceptor):
        async def operation(self, call: Operation, proceed: Next, /) -> Any:
            seen.append(call.method)
            return await proceed(call)

        def immediate(self, call: Operation, proceed: Callable[[Operation], Any], /) -> Any:
            seen.append(call.method)
            return proceed(call)

    worker = Worker(interceptors=[Seeing()])
    worker.workflow("flow")(everything)
    worker.step("local")(short)
    decision = finish(worker, ModelOperator(), {"task:run-1:task": {"ok": True}})
    assert decision.error is not None
    assert "made-up" in decision.error.message
    assert set(seen) == set(get_args(Method))


def test_an_operation_says_what_it_is_about_and_who_asks() -> None:
    seen: list[Operation] = []

    async def see(call: Operation, proceed: Next) -> Any:
        seen.append(call)
        return await proceed(call)

    async def body(ctx: WorkflowContext) -> None:
        await ctx.step("charge", {"id": 1}, retries=2, timeout=timedelta(seconds=9))

    decide(body, Around(see))
    (call,) = seen
    assert isinstance(call, StepOperation)
    assert (call.method, call.name, call.input) == ("step", "charge", {"id": 1})
    assert (call.retries, call.timeout, call.partition) == (Retry(attempts=3), 9, "default")
    assert (call.run_id, call.workflow, call.version) == ("run-1", "flow", "1")
    assert call.location == line_of(body, 1)
    assert str(call) == "ctx.step('charge')"


def test_the_first_interceptor_is_the_outermost() -> None:
    seen: list[str] = []

    class Named(Interceptor):
        def __init__(self, name: str) -> None:
            self.name = name

        async def body(self, call: BodyExecution, proceed: Proceed[BodyExecution, Any], /) -> Any:
            seen.append(f"{self.name} body")
            return await proceed(call)

        async def operation(self, call: Operation, proceed: Next, /) -> Any:
            seen.append(f"{self.name} operation")
            return await proceed(call)

        def immediate(self, call: Operation, proceed: Callable[[Operation], Any], /) -> Any:
            seen.append(f"{self.name} immediate")
            return proceed(call)

    async def body(ctx: WorkflowContext) -> None:
        ctx.uuid()
        await ctx.sleep(1)

    decide(body, Named("a"), Named("b"))
    kinds = ("body", "immediate", "operation")
    assert seen == [f"{name} {kind}" for kind in kinds for name in ("a", "b")]


def test_what_is_not_overridden_is_not_in_the_way() -> None:
    kinds: list[type] = []

    class Steps(Interceptor):
        async def step(self, call: Any, proceed: Any, /) -> Any: ...

    async def body(ctx: WorkflowContext) -> None:
        kinds.append(type(ctx))

    decide(body, Steps())
    assert kinds == [WorkflowContext]


def test_what_an_interceptor_asks_the_context_for_is_not_intercepted() -> None:
    seen: list[str] = []

    async def note(call: Operation, proceed: Next) -> Any:
        seen.append(call.name)
        await call.context.step("audit", call.name)
        return await proceed(call)

    async def body(ctx: WorkflowContext) -> None:
        await ctx.step("charge")

    (command,) = decide(body, Around(note), operator=history(called(0, "audit"))).commands
    assert isinstance(command, ScheduleStep)
    assert command.name == "charge"
    assert seen == ["charge"]


def test_interceptors_and_body_draw_from_one_source_of_random_numbers() -> None:
    drawn: list[float] = []

    def draw(call: Operation, proceed: Callable[[Operation], Any]) -> Any:
        drawn.append(call.context.random.random())
        return proceed(call)

    async def body(ctx: WorkflowContext) -> None:
        drawn.append(ctx.random.random())

    decide(body, AroundImmediate(draw))
    assert len(set(drawn)) == 2


def test_what_undoes_a_step_of_an_interceptor_is_run_with_the_bodys_own() -> None:
    async def hold(call: Operation, proceed: Next) -> Any:
        if call.method == "step":
            await call.context.step("hold", compensate="let-go")
        return await proceed(call)

    async def body(ctx: WorkflowContext) -> None:
        await ctx.step("charge")
        raise FatalError("no")

    operator = history(called(0, "hold"), called(1, "charge"))
    (command,) = decide(body, Around(hold), operator=operator).commands
    assert isinstance(command, ScheduleStep)
    assert command.name == "let-go"


def test_sleeping_until_an_instant_reads_the_time_through_them() -> None:
    seen: list[str] = []

    def see(call: Operation, proceed: Callable[[Operation], Any]) -> Any:
        seen.append(f"{call} at {call.location}")
        return proceed(call) + timedelta(hours=1)

    async def body(ctx: WorkflowContext) -> None:
        await ctx.sleep_until(datetime.fromtimestamp(1_000, UTC) + timedelta(hours=2))

    _, timer = decide(body, AroundImmediate(see)).commands
    assert isinstance(timer, StartTimer)
    assert timer.ms == 3_600_000
    assert seen == [f"ctx.now() at {line_of(body, 1)}"]


def test_a_body_that_is_kept_is_intercepted_once() -> None:
    seen: list[str] = []

    async def see(call: Operation, proceed: Next) -> Any:
        seen.append(call.name)
        return await proceed(call)

    async def body(ctx: WorkflowContext) -> None:
        await ctx.step("a")
        await ctx.step("b")

    worker = Worker(interceptors=[Around(see)])
    worker.workflow("flow")(body)
    operator = ModelOperator()
    replay = new_replay(worker, operator.task())
    operator.apply(take_turn(replay, operator.task(), now_ms=0))
    operator.resolve(0)
    assert replay.can_continue(operator.task())
    operator.apply(take_turn(replay, operator.task(), now_ms=0))
    assert seen == ["a", "b"]
    replay.dispose()
