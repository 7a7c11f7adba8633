"""Children that are started now, and awaited later or never."""

import asyncio
from typing import Any

import pytest
from msgspec import Raw

from durable_worker import (
    ChildFailedError,
    PayloadError,
    RegistrationError,
    Worker,
    WorkflowContext,
)
from durable_worker.protocol.commands import (
    DecisionStatus,
    RecordStep,
    ScheduleStep,
    StartChild,
    StartTimer,
)
from durable_worker.protocol.failure import Failure
from tests.replay.model import ModelOperator, turn


async def ship_and_charge(ctx: WorkflowContext) -> list[Any]:
    parcel = ctx.start_child("shipping", {"order": 1}, returns=int)
    return [parcel.run_id, await ctx.step("charge"), await parcel, await parcel.result()]


def test_a_child_is_started_before_anything_awaits_it_and_its_run_id_is_known() -> None:
    operator = ModelOperator()
    assert turn(ship_and_charge, operator).commands == [
        StartChild(seq=0, workflow="shipping", input=Raw(b'{"order":1}')),
        ScheduleStep(seq=1, name="charge", group="default"),
    ]
    operator.resolve(0, 7)
    assert turn(ship_and_charge, operator).status is DecisionStatus.CONTINUE
    operator.resolve(1, "charged")
    expected = b'["run-1.child.0","charged",7,7]'
    assert bytes(turn(ship_and_charge, operator).output) == expected


def test_a_child_by_function_has_its_types() -> None:
    worker = Worker()

    @worker.workflow("shipping")
    async def shipping(ctx: WorkflowContext, order: int) -> set[int]: ...

    async def body(ctx: WorkflowContext) -> str:
        return str(await ctx.start_child(shipping, 1))

    operator = ModelOperator()
    turn(body, operator, worker=worker)
    operator.resolve(0, [1, 1])
    assert bytes(turn(body, operator, worker=worker).output) == b'"{1}"'


def test_a_child_that_fails_raises_where_it_is_awaited_and_only_there() -> None:
    async def body(ctx: WorkflowContext) -> str:
        child = ctx.start_child("shipping")
        await ctx.step("charge")
        try:
            await child
        except ChildFailedError as error:
            return str(error)
        return "shipped"

    operator = ModelOperator()
    turn(body, operator)
    operator.resolve(0, error=Failure(message="lost"))
    operator.resolve(1)
    expected = b"\"child workflow 'shipping' failed: lost\""
    assert bytes(turn(body, operator).output) == expected


def test_waiting_for_a_child_may_run_out_of_time_and_the_child_goes_on() -> None:
    async def body(ctx: WorkflowContext) -> Any:
        child = ctx.start_child("shipping")
        try:
            return await child.result(timeout=60)
        except TimeoutError:
            await ctx.step("remind")
        return await child

    operator = ModelOperator()
    turn(body, operator)
    operator.resolve(1)
    commands = turn(body, operator).commands
    assert StartChild(seq=0, workflow="shipping") in commands
    operator.resolve(0, "late")
    operator.resolve(next(c.seq for c in commands if isinstance(c, ScheduleStep)))
    assert bytes(turn(body, operator).output) == b'"late"'


@pytest.mark.parametrize("how", ["returns", "raises"])
def test_a_child_is_started_even_if_the_body_ends_at_once(how: str) -> None:
    async def body(ctx: WorkflowContext) -> str:
        await ctx.step("charge")
        child = ctx.start_child("shipping")
        ctx.set_event("child", child.run_id)
        left_over = asyncio.ensure_future(ctx.step("left over"))
        await asyncio.sleep(0)
        assert not left_over.done()
        if how == "raises":
            raise ValueError("no")
        return child.run_id

    operator = ModelOperator()
    turn(body, operator)
    operator.resolve(0)
    # What ends a run is not applied but for what it recorded, so the end comes a turn later.
    assert turn(body, operator).commands == [
        StartChild(seq=1, workflow="shipping"),
        RecordStep(seq=2, name="event:child", output=Raw(b'"run-1.child.1"')),
        StartTimer(seq=4, ms=0),
    ]
    again = turn(body, operator)
    assert [type(each) for each in again.commands] == [StartChild, StartTimer]
    operator.resolve(4)
    ends = {"returns": DecisionStatus.COMPLETED, "raises": DecisionStatus.FAILED}
    assert turn(body, operator).status is ends[how]
    operator.resolve(1, "shipped")
    assert turn(body, operator).status is ends[how]


def test_the_end_waits_no_turn_if_something_later_proves_that_the_child_was_started() -> None:
    async def body(ctx: WorkflowContext) -> str:
        child = ctx.start_child("shipping")
        await ctx.step("charge")
        return child.run_id

    operator = ModelOperator()
    turn(body, operator)
    operator.resolve(1)
    assert turn(body, operator).status is DecisionStatus.COMPLETED


def test_a_child_that_cannot_be_started_is_refused_at_once_and_leaves_no_gap() -> None:
    async def nobody_serves(ctx: WorkflowContext) -> None: ...

    async def body(ctx: WorkflowContext) -> None:
        with pytest.raises(PayloadError, match="the input of child workflow 'shipping'"):
            ctx.start_child("shipping", object())
        with pytest.raises(RegistrationError, match="not registered as a workflow"):
            ctx.start_child(nobody_serves)
        await ctx.step("charge")

    assert turn(body, ModelOperator()).commands == [
        ScheduleStep(seq=0, name="charge", group="default")
    ]
