"""What a body goes through when its run is cancelled."""

import asyncio
from typing import Any

import pytest
from msgspec import UNSET, Raw

from durable_worker import Retry, WorkflowContext
from durable_worker.protocol.commands import (
    AnyCommand,
    DecisionStatus,
    RecordStep,
    ScheduleStep,
    StartChild,
    StartTimer,
    WaitSignal,
    WorkflowDecision,
)
from durable_worker.protocol.failure import Failure
from durable_worker.replay.operations import DURABLE_TIMERS
from tests.replay.model import Body, ModelOperator, turn


def cancelled_at(seq: int, delivered: bytes = b"[]") -> RecordStep:
    return RecordStep(seq=seq, name="durable:cancelled", output=Raw(delivered))


def call(seq: int, name: str, value: bytes | None = None) -> ScheduleStep:
    payload = UNSET if value is None else Raw(value)
    return ScheduleStep(seq=seq, name=name, group="default", input=payload)


def cancel(body: Body, operator: ModelOperator) -> WorkflowDecision:
    operator.is_cancelled = True
    return turn(body, operator)


async def waiting(ctx: WorkflowContext) -> None:
    await ctx.wait_signal("never")


def test_a_body_without_anything_to_undo_ends_at_once() -> None:
    operator = ModelOperator()
    assert turn(waiting, operator).commands == [WaitSignal(seq=0, signal="never")]
    decision = cancel(waiting, operator)
    assert decision.status is DecisionStatus.CANCELLED
    assert decision.error == Failure(message="the run was cancelled", code="cancelled")
    assert decision.commands == [cancelled_at(1)]


def test_what_the_body_does_in_finally_is_done_before_the_run_ends() -> None:
    async def body(ctx: WorkflowContext) -> None:
        try:
            await ctx.wait_signal("never")
        finally:
            await ctx.sleep(5)
            await ctx.step("release")

    operator = ModelOperator(capabilities=[DURABLE_TIMERS])
    turn(body, operator)
    assert cancel(body, operator).commands == [cancelled_at(1), StartTimer(seq=2, ms=5_000)]
    operator.resolve(2)
    assert turn(body, operator).commands == [call(3, "release")]
    operator.resolve(3)
    assert turn(body, operator).status is DecisionStatus.CANCELLED


def test_what_has_come_before_is_delivered_before_the_cancellation() -> None:
    async def body(ctx: WorkflowContext) -> str:
        return f"{await ctx.step('a')} {await ctx.step('b')}"

    operator = ModelOperator()
    turn(body, operator)
    operator.resolve(0, "a")
    decision = cancel(body, operator)
    assert decision.commands == [cancelled_at(2)]  # b was asked for, and not even sent
    assert decision.status is DecisionStatus.CANCELLED


def test_a_body_that_ends_in_the_turn_that_would_cancel_it_has_ended() -> None:
    operator = ModelOperator()
    turn(waiting, operator)
    operator.resolve(0)
    decision = cancel(waiting, operator)
    assert (decision.status, decision.commands) == (DecisionStatus.COMPLETED, [])


def test_what_a_branch_got_before_the_cancellation_is_named_in_it() -> None:
    seen: list[object] = []

    async def body(ctx: WorkflowContext) -> None:
        async def branch(name: str) -> None:
            seen.append(await ctx.step(name))

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(branch("a"))
                group.create_task(branch("b"))
        finally:
            await ctx.step("undo", seen)

    operator = ModelOperator()
    turn(body, operator)
    operator.resolve(1, "second")
    seen.clear()
    assert cancel(body, operator).commands == [
        cancelled_at(2, b"[1]"),
        call(3, "undo", b'["second"]'),
    ]
    operator.resolve(0, "late")
    operator.resolve(3)
    seen.clear()
    assert turn(body, operator).status is DecisionStatus.CANCELLED
    assert seen == ["second"]


def test_a_body_may_go_on_after_a_cancellation_and_complete() -> None:
    async def body(ctx: WorkflowContext) -> str:
        try:
            await ctx.wait_signal("never")
        except asyncio.CancelledError:
            return str(await ctx.step("settle"))
        return "never"

    operator = ModelOperator()
    turn(body, operator)
    assert cancel(body, operator).commands == [cancelled_at(1), call(2, "settle")]
    operator.resolve(2, "settled")
    decision = turn(body, operator)
    assert (decision.status, decision.output) == (DecisionStatus.COMPLETED, Raw(b'"settled"'))


def test_a_body_that_fails_on_its_way_out_has_failed() -> None:
    async def body(ctx: WorkflowContext) -> None:
        try:
            await ctx.wait_signal("never")
        finally:
            await ctx.step("release")

    operator = ModelOperator()
    turn(body, operator)
    cancel(body, operator)
    operator.resolve(2, error=Failure(message="stuck", code="Jammed"))
    decision = turn(body, operator)
    assert decision.status is DecisionStatus.FAILED
    assert decision.error is not None
    assert "step 'release' failed [Jammed]: stuck" in decision.error.message


def test_compensations_run_in_reverse_and_one_that_fails_is_told() -> None:
    async def body(ctx: WorkflowContext) -> None:
        for name in ("book", "charge"):
            await ctx.step(name, name, compensate=f"un{name}")
        await ctx.wait_signal("never")

    operator = ModelOperator()
    for seq in range(2):
        turn(body, operator)
        operator.resolve(seq, seq)
    turn(body, operator)
    assert cancel(body, operator).commands == [
        cancelled_at(3),
        call(4, "uncharge", b'{"input":"charge","output":1}'),
    ]
    operator.resolve(4, error=Failure(message="too late"))
    assert turn(body, operator).commands == [call(5, "unbook", b'{"input":"book","output":0}')]
    operator.resolve(5)
    decision = turn(body, operator)
    assert decision.status is DecisionStatus.CANCELLED
    assert decision.error == Failure(
        message="the run was cancelled; the compensation 'uncharge' failed too: step 'uncharge' "
        "failed: too late",
        code="cancelled",
    )


def test_a_step_in_flight_is_waited_for_and_undone() -> None:
    async def body(ctx: WorkflowContext) -> None:
        await ctx.step("charge", 5, compensate="refund", retries=Retry(attempts=3))

    operator = ModelOperator()
    turn(body, operator)
    assert cancel(body, operator).commands == [call(0, "charge", b"5"), cancelled_at(1)]
    operator.resolve(0, "ref")
    assert turn(body, operator).commands == [call(2, "refund", b'{"input":5,"output":"ref"}')]


def test_a_step_in_flight_that_fails_is_not_tried_again() -> None:
    async def body(ctx: WorkflowContext) -> None:
        await ctx.step("charge", 5, compensate="refund", retries=Retry(attempts=3, jitter=0))

    operator = ModelOperator()
    turn(body, operator)
    cancel(body, operator)
    operator.resolve(0, error=Failure(message="no"))
    commands = turn(body, operator).commands
    while operator.final is None:
        assert [type(each) for each in commands] == [StartTimer]
        operator.resolve(commands[0].seq)
        commands = turn(body, operator).commands
    assert operator.final.status is DecisionStatus.CANCELLED
    asked = [each for each in operator.history.values() if each.name == "charge"]
    assert len(asked) == 1


def test_a_second_cancellation_does_not_reach_a_body_that_is_cleaning_up() -> None:
    async def body(ctx: WorkflowContext) -> None:
        try:
            await ctx.wait_signal("never")
        finally:
            await ctx.step("one")
            await ctx.step("two")

    operator = ModelOperator()
    turn(body, operator)
    cancel(body, operator)
    operator.resolve(2)
    assert cancel(body, operator).commands == [call(3, "two")]


def test_a_child_that_was_promised_is_not_started_by_a_cancelled_body() -> None:
    async def body(ctx: WorkflowContext) -> None:
        ctx.start_child("child")
        await ctx.wait_signal("never")

    operator = ModelOperator()
    assert turn(body, operator).commands[0] == StartChild(seq=0, workflow="child")
    assert cancel(body, operator).status is DecisionStatus.CANCELLED


def test_a_body_that_cancels_itself_has_failed_also_in_a_cancelled_run() -> None:
    async def body(ctx: WorkflowContext) -> None:
        await ctx.step("a")
        raise asyncio.CancelledError

    operator = ModelOperator()
    turn(body, operator)
    operator.resolve(0)
    decision = cancel(body, operator)
    assert decision.status is DecisionStatus.FAILED
    assert decision.error is not None
    assert "cancelled itself" in decision.error.message


def test_an_older_replay_law_does_not_read_the_marker_as_a_step() -> None:
    async def body(ctx: WorkflowContext) -> None:
        try:
            await ctx.wait_signal("never")
        finally:
            await ctx.step("release")

    async def changed(ctx: WorkflowContext) -> None:
        await ctx.step("other")

    operator = ModelOperator()
    turn(body, operator)
    cancel(body, operator)
    operator.resolve(2)
    decision = turn(changed, ModelOperator(history=operator.history, is_cancelled=True))
    assert decision.status is DecisionStatus.FAILED
    assert decision.error is not None
    assert decision.error.code == "nondeterminism"


def test_a_cancellation_does_not_hide_that_the_code_no_longer_fits_its_history() -> None:
    async def old(ctx: WorkflowContext) -> None:
        await asyncio.gather(ctx.step("a"), ctx.step("charge", compensate="refund"))

    async def new(ctx: WorkflowContext) -> None:
        await ctx.step("a")

    operator = ModelOperator()
    turn(old, operator)
    operator.resolve(1)
    decision = cancel(new, ModelOperator(history=operator.history))
    assert decision.error is not None
    assert decision.error.code == "nondeterminism"


@pytest.mark.parametrize("name", ["timeout", "shield", "wait", "saga"])
def test_every_way_to_wait_can_be_cancelled(name: str) -> None:
    async def body(ctx: WorkflowContext) -> None:
        match name:
            case "timeout":
                async with asyncio.timeout(60):
                    await ctx.step("a")
            case "shield":
                await asyncio.shield(asyncio.ensure_future(ctx.step("a")))
            case "wait":
                await asyncio.wait([asyncio.ensure_future(ctx.step("a"))])
            case _:
                async with ctx.saga() as saga:
                    await saga.step("a")

    operator = ModelOperator()
    turn(body, operator)
    commands: list[AnyCommand | Any] = [
        each for each in cancel(body, operator).commands if isinstance(each, RecordStep)
    ]
    assert commands[-1].name == "durable:cancelled"
    assert operator.final is not None
    assert operator.final.status is DecisionStatus.CANCELLED
