"""What is undone when something fails, in which order, and with what."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import msgspec
import pytest

from durable_worker import Retry, StepFailedError, Undo, Worker, WorkflowContext
from durable_worker.protocol.commands import DecisionStatus, ScheduleStep, StartTimer
from durable_worker.protocol.failure import Failure
from durable_worker.replay.operations import CALL_RETRY
from tests.replay.model import Body, ModelOperator, full_turn, new_replay, take_turn, turn


class Order(msgspec.Struct):
    id: str


class Charge(msgspec.Struct):
    reference: int


worker = Worker()


@worker.step("charge")
async def charge(order: Order) -> Charge: ...


@worker.step("refund", retries=Retry(attempts=3, jitter=0), timeout=30)
async def refund(undo: Undo[Order, Charge]) -> None: ...


FAILS = {"fail", "undo-fails"}


def run(body: Body, operator: ModelOperator, *, fails: set[str] | None = None) -> list[Any]:
    """Answer every call by its name until the run ends; the calls in order, with their inputs."""
    serving = Worker()
    calls: list[Any] = []
    seen: set[int] = set()
    for _ in range(50):
        turn(body, operator, worker=serving)
        if operator.final is not None:
            return calls
        for seq, command in sorted(operator.pending.items()):
            if isinstance(command, ScheduleStep):
                if seq not in seen:
                    seen.add(seq)
                    value = msgspec.json.decode(command.input) if command.input else None
                    calls.append((command.name, value))
                if command.name in (fails or FAILS):
                    operator.resolve(seq, error=Failure(message="no", code="Nope"))
                elif command.name != "never":
                    operator.resolve(seq, f"{command.name} done")
            elif isinstance(command, StartTimer):
                operator.resolve(seq)
    raise AssertionError("the run did not end")


def pair(name: str, value: object = None) -> dict[str, object]:
    return {"input": value, "output": f"{name} done"}


def failed_with(operator: ModelOperator) -> tuple[str, str]:
    assert operator.final is not None
    assert operator.final.status is DecisionStatus.FAILED
    assert operator.final.error is not None
    return operator.final.error.message, operator.final.error.stack or ""


def test_what_a_failed_body_has_done_is_undone_latest_first_with_input_and_output() -> None:
    async def body(ctx: WorkflowContext) -> None:
        await ctx.step("a", 1, compensate="undo-a")
        await ctx.step("b")
        await ctx.step("c", {"x": [2]}, compensate="undo-c")
        await ctx.step("fail", compensate="undo-fail")

    operator = ModelOperator()
    assert run(body, operator)[4:] == [
        ("undo-c", pair("c", {"x": [2]})),
        ("undo-a", pair("a", 1)),
    ]
    assert failed_with(operator)[0] == "step 'fail' failed [Nope]: no"


def test_a_body_that_ends_well_undoes_nothing_and_one_whose_output_has_no_json_does() -> None:
    async def ends_well(ctx: WorkflowContext) -> None:
        await ctx.step("a", compensate="undo-a")

    async def ends_badly(ctx: WorkflowContext) -> Any:
        await ctx.step("a", compensate="undo-a")
        return object()

    assert run(ends_well, ModelOperator()) == [("a", None)]
    operator = ModelOperator()
    assert run(ends_badly, operator) == [("a", None), ("undo-a", pair("a"))]
    assert "the output of workflow" in failed_with(operator)[0]


def test_a_compensation_that_fails_is_noted_and_does_not_stop_the_others() -> None:
    async def body(ctx: WorkflowContext) -> None:
        await ctx.step("a", compensate="undo-a")
        await ctx.step("b", compensate="undo-fails")
        await ctx.step("fail")

    operator = ModelOperator()
    assert [name for name, _ in run(body, operator)] == ["a", "b", "fail", "undo-fails", "undo-a"]
    message, stack = failed_with(operator)
    assert message == "step 'fail' failed [Nope]: no"
    note = "the compensation 'undo-fails' failed too: step 'undo-fails' failed [Nope]: no"
    assert note in stack


def test_a_scope_undoes_its_own_and_the_body_goes_on() -> None:
    async def body(ctx: WorkflowContext) -> str:
        await ctx.step("outside", compensate="undo-outside")
        try:
            async with ctx.saga() as saga:
                await saga.step("inside", compensate="undo-inside")
                saga.add("undo-added", {"added": True})
                await saga.step("fail")
        except StepFailedError as error:
            await ctx.step("apologize")
            return str(error)
        return "done"

    operator = ModelOperator()
    assert run(body, operator)[3:] == [
        ("undo-added", {"added": True}),
        ("undo-inside", pair("inside")),
        ("apologize", None),
    ]
    assert operator.final is not None
    assert operator.final.status is DecisionStatus.COMPLETED


def test_a_scope_that_was_left_well_is_not_undone_when_the_body_fails_later() -> None:
    async def body(ctx: WorkflowContext) -> None:
        async with ctx.saga() as saga:
            await saga.step("inside", compensate="undo-inside")
        await ctx.step("fail")

    assert [name for name, _ in run(body, ModelOperator())] == ["inside", "fail"]


def test_what_a_scope_does_outside_of_itself_is_refused() -> None:
    async def body(ctx: WorkflowContext) -> None:
        saga = ctx.saga()
        with pytest.raises(RuntimeError, match="inside its `async with`"):
            saga.add("undo")
        async with saga:
            pass
        with pytest.raises(RuntimeError, match="inside its `async with`"):
            saga.step("a", compensate="undo")

    assert turn(body, ModelOperator()).status is DecisionStatus.COMPLETED


def test_a_scope_that_runs_out_of_time_is_undone_the_step_that_still_runs_too() -> None:
    async def body(ctx: WorkflowContext) -> str:
        try:
            async with asyncio.timeout(60), ctx.saga() as saga:
                await saga.step("a", compensate="undo-a")
                await saga.step("slow", compensate="undo-slow")
        except TimeoutError:
            return "too slow"
        return "done"

    operator = ModelOperator()
    turn(body, operator)
    operator.resolve(next(s for s, c in operator.pending.items() if isinstance(c, ScheduleStep)))
    turn(body, operator)
    operator.resolve(next(s for s, c in operator.pending.items() if isinstance(c, StartTimer)))
    turn(body, operator)
    by_name = {c.name: s for s, c in operator.pending.items() if isinstance(c, ScheduleStep)}
    assert set(by_name) == {"slow", "undo-a"}
    operator.resolve(by_name["undo-a"])
    assert turn(body, operator).status is DecisionStatus.CONTINUE
    operator.resolve(by_name["slow"], "done after all")
    decision = turn(body, operator)
    (undo,) = [c for c in decision.commands if isinstance(c, ScheduleStep)]
    assert undo.name == "undo-slow"
    assert msgspec.json.decode(undo.input) == {"input": None, "output": "done after all"}
    operator.resolve(undo.seq)
    assert bytes(turn(body, operator).output) == b'"too slow"'


def test_a_step_that_nobody_waits_for_any_more_is_not_tried_again() -> None:
    async def body(ctx: WorkflowContext) -> str:
        try:
            async with asyncio.timeout(60), ctx.saga() as saga:
                await saga.step("slow", compensate="undo", retries=5)
        except TimeoutError:
            return "too slow"
        return "done"

    operator = ModelOperator()
    turn(body, operator)
    operator.resolve(0)
    turn(body, operator)
    operator.resolve(1, error=Failure(message="no"))
    turn(body, operator)
    for seq in list(operator.pending):
        operator.resolve(seq)
    assert bytes(turn(body, operator).output) == b'"too slow"'


def test_compensations_are_carried_through_when_time_runs_out_around_them() -> None:
    async def body(ctx: WorkflowContext) -> str:
        try:
            async with asyncio.timeout(60), ctx.saga() as saga:
                await saga.step("a", compensate="undo-a")
                await saga.step("b", compensate="undo-b")
                raise ValueError("wrong")
        except ValueError as error:
            return str(error)
        return "done"

    operator = ModelOperator()
    names: list[str] = []
    for _ in range(4):
        turn(body, operator)
        calls = [(s, c.name) for s, c in operator.pending.items() if isinstance(c, ScheduleStep)]
        names += [name for _, name in calls]
        if "undo-b" in names:
            for seq, command in list(operator.pending.items()):
                if isinstance(command, StartTimer):
                    operator.resolve(seq)
        for seq, _ in calls:
            operator.resolve(seq)
    assert bytes(turn(body, operator).output) == b'"wrong"'
    assert names == ["a", "b", "undo-b", "undo-a"]


def test_a_failed_branch_of_a_gather_undoes_its_sibling_that_ends_later() -> None:
    async def body(ctx: WorkflowContext) -> None:
        await asyncio.gather(
            ctx.step("fail", compensate="undo-fail"), ctx.step("late", compensate="undo-late")
        )

    operator = ModelOperator()
    turn(body, operator)
    operator.resolve(0, error=Failure(message="no"))
    assert turn(body, operator).status is DecisionStatus.CONTINUE
    operator.resolve(1, "done")
    calls = [c for c in turn(body, operator).commands if isinstance(c, ScheduleStep)]
    assert [each.name for each in calls] == ["undo-late"]


def test_compensations_have_their_own_types_retries_and_timeout() -> None:
    serving = Worker()
    serving.step("charge")(charge)
    serving.step("refund", retries=Retry(attempts=3, jitter=0), timeout=30)(refund)

    async def body(ctx: WorkflowContext) -> None:
        await ctx.step(charge, Order("o-1"), compensate=refund)
        raise ValueError("no parcel")

    operator = ModelOperator(capabilities=[CALL_RETRY])
    turn(body, operator, worker=serving)
    operator.resolve(0, Charge(7))
    call, timer, *_ = turn(body, operator, worker=serving).commands
    assert isinstance(call, ScheduleStep)
    assert isinstance(timer, StartTimer)
    assert (call.name, timer.ms) == ("refund", 30_000)
    assert msgspec.json.decode(call.input, type=Undo[Order, Charge]) == Undo(
        Order("o-1"), Charge(7)
    )
    assert serving.steps["refund"].arguments(call.input, None) == (Undo(Order("o-1"), Charge(7)),)
    operator.resolve(call.seq, error=Failure(message="try again"))
    assert turn(body, operator, worker=serving).status is DecisionStatus.CONTINUE


def test_a_body_that_is_dropped_while_it_undoes_starts_nothing_more() -> None:
    async def body(ctx: WorkflowContext) -> None:
        await ctx.step("a", compensate="undo-a")
        await ctx.step("b", compensate="undo-b")
        raise ValueError

    serving = Worker()
    serving.workflow("flow")(body)
    operator = ModelOperator()
    for _ in range(2):
        operator.apply(full_turn(serving, operator.task()))
        operator.resolve(max(operator.pending))
    kept = new_replay(serving, operator.task())
    decision = take_turn(kept, operator.task(), now_ms=0)
    assert [c.name for c in decision.commands if isinstance(c, ScheduleStep)] == ["undo-b"]
    kept.dispose()
    kept.dispose()


def test_the_input_is_undone_as_it_was_when_the_step_was_called() -> None:
    async def body(ctx: WorkflowContext) -> None:
        basket = ["lamp"]
        doing: Coroutine[Any, Any, Any] = ctx.step("a", basket, compensate="undo-a")
        task = asyncio.ensure_future(doing)
        await ctx.step("b")
        basket.append("chair")
        await task
        raise ValueError

    assert run(body, ModelOperator())[-1] == ("undo-a", pair("a", ["lamp"]))


def test_a_step_to_be_undone_that_is_never_awaited_is_a_mistake_that_is_named() -> None:
    async def body(ctx: WorkflowContext) -> None:
        ctx.step("a", compensate="undo-a")

    error = turn(body, ModelOperator()).error
    assert error is not None
    assert error.code == "never-awaited"
