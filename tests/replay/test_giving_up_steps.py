"""Steps that a body gives up: the operator is told, where it wants to know."""

import asyncio

import pytest
from msgspec import Raw

from durable_worker import StepTimeoutError, Undo, Worker, WorkflowContext
from durable_worker.protocol.commands import (
    CancelStep,
    DecisionStatus,
    ScheduleStep,
    StartTimer,
    WaitSignal,
)
from durable_worker.protocol.failure import Failure
from durable_worker.replay.operations import CANCEL_STEPS, DURABLE_TIMERS, ORDERED_HISTORY
from tests.replay.model import Body, ModelOperator, turn

TOLD = [CANCEL_STEPS, DURABLE_TIMERS, ORDERED_HISTORY]


async def in_time(ctx: WorkflowContext) -> str:
    try:
        async with asyncio.timeout(5):
            await ctx.step("slow")
    except TimeoutError:
        pass
    await ctx.wait_signal("go")
    return "gone"


async def by_hand(ctx: WorkflowContext) -> str:
    task = asyncio.ensure_future(ctx.step("slow"))
    await ctx.sleep(5)
    task.cancel()
    await ctx.wait_signal("go")
    return "gone"


async def by_a_failing_sibling(ctx: WorkflowContext) -> str:
    async def fail() -> None:
        await ctx.sleep(5)
        raise ValueError

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.step("slow"))
            group.create_task(fail())
    except* ValueError:
        pass
    await ctx.wait_signal("go")
    return "gone"


@pytest.mark.parametrize("body", [in_time, by_hand, by_a_failing_sibling])
def test_the_operator_is_told_of_a_call_whose_wait_was_cancelled(body: Body) -> None:
    operator = ModelOperator(capabilities=TOLD)
    commands = turn(body, operator).commands
    slow = next(each.seq for each in commands if isinstance(each, ScheduleStep))
    operator.resolve(timer_of(operator))
    decision = turn(body, operator)
    assert decision.commands == [CancelStep(seq=slow), WaitSignal(seq=2, signal="go")]
    assert operator.history[slow].error == Failure(message="given up", code="cancelled")
    # Once history tells it, it is not told again; nobody in the body gets it.
    assert turn(body, operator).commands == [WaitSignal(seq=2, signal="go")]
    operator.resolve(2)
    assert turn(body, operator).output == Raw(b'"gone"')


def timer_of(operator: ModelOperator) -> int:
    return next(seq for seq, each in operator.pending.items() if isinstance(each, StartTimer))


@pytest.mark.parametrize("stated", [None, [CANCEL_STEPS], [DURABLE_TIMERS, ORDERED_HISTORY]])
def test_it_is_told_only_where_the_operator_wants_to_know_and_tells_the_order(
    stated: list[str] | None,
) -> None:
    operator = ModelOperator(capabilities=stated)
    turn(in_time, operator)
    operator.resolve(timer_of(operator))
    commands = turn(in_time, operator).commands
    assert not any(isinstance(each, CancelStep) for each in commands)


def test_the_losers_of_a_race_are_told_with_the_end_of_the_body() -> None:
    async def body(ctx: WorkflowContext) -> str:
        tasks = [asyncio.ensure_future(ctx.step(name)) for name in ("a", "b", "c")]
        done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            task.cancel()
        await asyncio.wait(rest)
        return str(done.pop().result())

    operator = ModelOperator(capabilities=TOLD)
    turn(body, operator)
    operator.resolve(1, "won")
    decision = turn(body, operator)
    assert decision.status is DecisionStatus.COMPLETED
    assert decision.commands == [CancelStep(seq=0), CancelStep(seq=2)]


def test_an_attempt_that_is_too_late_is_given_up() -> None:
    async def body(ctx: WorkflowContext) -> None:
        with pytest.raises(StepTimeoutError):
            await ctx.step("slow", timeout=5)
        await ctx.wait_signal("go")

    operator = ModelOperator(capabilities=TOLD)
    turn(body, operator)
    operator.resolve(timer_of(operator))
    assert any(isinstance(each, CancelStep) for each in turn(body, operator).commands)


def test_a_call_that_is_to_be_undone_goes_on() -> None:
    """It may take effect, and must then be undone."""
    worker = Worker()

    @worker.step("undo")
    async def undo(_: Undo[None, None]) -> None: ...

    async def body(ctx: WorkflowContext) -> None:
        try:
            async with asyncio.timeout(5):
                await ctx.step("pay", compensate=undo)
        except TimeoutError:
            await ctx.wait_signal("go")

    operator = ModelOperator(capabilities=TOLD)
    turn(body, operator, worker=worker)
    operator.resolve(timer_of(operator))
    commands = turn(body, operator, worker=worker).commands
    assert not any(isinstance(each, CancelStep) for each in commands)


def test_an_attempt_that_is_too_late_goes_on_if_it_is_to_be_undone() -> None:
    """Nobody can tell what an interrupted attempt has done."""

    async def body(ctx: WorkflowContext) -> None:
        with pytest.raises(StepTimeoutError):
            await ctx.step("slow", timeout=5, compensate="undo")
        await ctx.wait_signal("go")

    operator = ModelOperator(capabilities=TOLD)
    turn(body, operator)
    operator.resolve(timer_of(operator))
    assert turn(body, operator).commands == [WaitSignal(seq=2, signal="go")]


def test_a_decision_that_was_dropped_is_made_once_more() -> None:
    operator = ModelOperator(capabilities=TOLD)
    turn(in_time, operator)
    operator.resolve(timer_of(operator))
    history, pending = dict(operator.history), dict(operator.pending)
    first = turn(in_time, operator)
    operator.history, operator.pending = history, pending
    assert turn(in_time, operator).commands == first.commands
