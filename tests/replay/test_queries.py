"""Queries: what a body answers while it waits, and after it has ended."""

import asyncio
from collections.abc import Callable

import pytest
from msgspec import Raw
from msgspec.structs import replace

from durable_worker import WorkflowContext
from durable_worker.protocol.commands import DecisionStatus, RecordStep, ScheduleStep
from tests.replay.model import ModelOperator, turn


def answer(seq: int, output: bytes, *, name: str = "status") -> RecordStep:
    return RecordStep(seq=seq, name=f"event:{name}", output=Raw(output))


def cancelled() -> "asyncio.Future[None]":
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.cancel()
    return future


async def shop(ctx: WorkflowContext) -> str:
    status = "new"
    ctx.on_query("status", lambda: status)
    await ctx.step("pay")
    await ctx.step("pack")
    status = "packed"
    await ctx.step("ship")
    status = "shipped"
    return "done"


def test_an_answer_is_recorded_when_the_body_rests_and_the_answer_has_changed() -> None:
    operator = ModelOperator()
    pay, pack, ship = (
        ScheduleStep(seq=seq, name=name, group="default")
        for seq, name in ((0, "pay"), (2, "pack"), (3, "ship"))
    )
    assert turn(shop, operator).commands == [pay, answer(1, b'"new"')]
    operator.resolve(0)
    assert turn(shop, operator).commands == [pack]
    operator.resolve(2)
    assert turn(shop, operator).commands == [ship, answer(4, b'"packed"')]
    operator.resolve(3)
    final = turn(shop, operator)
    assert final.status is DecisionStatus.COMPLETED
    assert final.commands == [answer(5, b'"shipped"')]
    again = turn(shop, operator)
    assert (again.status, again.commands) == (DecisionStatus.COMPLETED, [])


def test_a_failing_body_leaves_its_last_answer() -> None:
    async def body(ctx: WorkflowContext) -> None:
        seen = [1]
        ctx.on_query("seen", lambda: seen)
        seen.append(2)
        raise ValueError("no")

    decision = turn(body, ModelOperator())
    assert decision.status is DecisionStatus.FAILED
    assert decision.commands == [answer(0, b"[1,2]", name="seen")]


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (lambda ctx: 1 // 0, "integer division or modulo by zero"),
        (lambda ctx: ctx.now(), "the handler of query 'event:status' calls a durable operation"),
        (lambda ctx: ctx.step("late"), "the answer to query 'event:status': "),
        (lambda ctx: cancelled().result(), "CancelledError"),
        (lambda ctx: object(), "the answer to query 'event:status': "),
    ],
)
def test_a_handler_that_cannot_answer_does_not_cost_the_run(
    handler: Callable[[WorkflowContext], object], reason: str
) -> None:
    async def body(ctx: WorkflowContext) -> str:
        ctx.on_query("status", lambda: handler(ctx))
        return str(await ctx.step("a"))

    operator = ModelOperator()
    _, record = turn(body, operator).commands
    assert isinstance(record, RecordStep)
    assert record.error is not None
    assert record.error.message.startswith(reason)
    operator.resolve(0, "ok")
    decision = turn(body, operator)
    assert (decision.status, decision.commands) == (DecisionStatus.COMPLETED, [])


def test_one_name_has_one_handler_and_is_not_published_otherwise() -> None:
    async def twice(ctx: WorkflowContext) -> None:
        ctx.on_query("a", lambda: 1)
        ctx.on_query("a", lambda: 2)

    async def published(ctx: WorkflowContext) -> None:
        ctx.on_query("a", lambda: 1)
        ctx.set_event("a", 2)

    async def answering(ctx: WorkflowContext) -> None:
        async def answer() -> int:
            return 1

        ctx.on_query("a", answer)

    for body, reason in (
        (twice, "has a handler already"),
        (published, "handler answers it"),
        (answering, "is `async`"),
    ):
        error = turn(body, ModelOperator()).error
        assert error is not None
        assert error.code == "registration"
        assert reason in error.message


def test_an_answer_that_an_operator_has_written_with_other_bytes_is_the_same() -> None:
    async def body(ctx: WorkflowContext) -> None:
        ctx.on_query("done", lambda: {"part": 1.0})
        await ctx.step("a")
        await ctx.step("b")

    operator = ModelOperator()
    turn(body, operator)
    operator.resolve(0)
    operator.history[1] = replace(operator.history[1], output=Raw(b'{"part": 1}'))
    commands = turn(body, operator).commands
    assert commands == [ScheduleStep(seq=2, name="b", group="default")]


def test_an_answer_recorded_beside_a_partial_delivery_keeps_the_order_of_results() -> None:
    async def body(ctx: WorkflowContext) -> list[object]:
        seen: list[object] = []
        ctx.on_query("seen", lambda: seen)
        for each in asyncio.as_completed([ctx.step(name) for name in "abc"]):
            seen.append(await each)
        return seen

    operator = ModelOperator()
    turn(body, operator)
    operator.resolve(2, "c")
    turn(body, operator)
    operator.resolve(0, "a")
    turn(body, operator)
    operator.resolve(1, "b")
    final = turn(body, operator)
    assert turn(body, operator).output == final.output
