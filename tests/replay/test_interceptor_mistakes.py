"""Mistakes of bodies and interceptors are named by the line that made them."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from durable_worker import (
    InterceptorError,
    WorkflowContext,
)
from durable_worker.interceptors import (
    Operation,
)
from durable_worker.protocol.commands import (
    DecisionStatus,
    WorkflowDecision,
)
from durable_worker.protocol.tasks import HistoryEvent, HistoryKind
from tests.replay.intercepting import (
    Around,
    AroundImmediate,
    Next,
    called,
    decide,
    history,
    line_of,
    pass_on,
)
from tests.replay.model import ModelOperator


def failure_of(decision: WorkflowDecision) -> tuple[str | None, str]:
    assert decision.status is DecisionStatus.FAILED
    assert decision.error is not None
    return decision.error.code, decision.error.message


@pytest.mark.parametrize(
    ("event", "offset"),
    [(called(0, "other"), 1), (called(1, "other"), 2), (called(2, "other"), 3)],
    ids=["step", "sleep", "now"],
)
def test_a_mismatch_names_the_line_of_the_body(event: HistoryEvent, offset: int) -> None:
    async def body(ctx: WorkflowContext) -> None:
        await ctx.step("charge")
        await ctx.sleep(1)
        ctx.now()

    slept = HistoryEvent(seq=1, kind=HistoryKind.TIMER, name="sleep:1")
    events = {0: called(0, "charge"), 1: slept, event.seq: event}
    passing = (Around(pass_on), AroundImmediate(lambda call, proceed: proceed(call)))
    decision = decide(body, *passing, operator=ModelOperator(history=events))
    code, message = failure_of(decision)
    assert code == "nondeterminism"
    assert line_of(body, offset) in message


def test_a_mismatch_of_what_an_interceptor_asks_for_names_its_line() -> None:
    async def note(call: Operation, proceed: Next) -> Any:
        await asyncio.sleep(1)
        return await proceed(call)

    async def body(ctx: WorkflowContext) -> None:
        await ctx.step("charge")

    code, message = failure_of(decide(body, Around(note), operator=history(called(0, "charge"))))
    assert code == "nondeterminism"
    assert line_of(note, 1) in message


def test_a_forgotten_await_in_the_body_names_its_line() -> None:
    async def body(ctx: WorkflowContext) -> None:
        ctx.step("charge")  # type: ignore[unused-coroutine]

    code, message = failure_of(decide(body, Around(pass_on)))
    assert code == "never-awaited"
    assert f"ctx.step('charge', ...) was called at {line_of(body, 1)}" in message


@pytest.mark.parametrize("call", ["sleep(1)", "wait_event('e')", "webhook().wait()", "child('c')"])
def test_a_forgotten_await_reads_the_same_with_and_without_interceptors(call: str) -> None:
    async def body(ctx: WorkflowContext) -> None:
        eval(f"ctx.{call}", {"ctx": ctx})

    assert failure_of(decide(body, Around(pass_on))) == failure_of(decide(body))


def test_a_forgotten_await_in_an_interceptor_names_its_line() -> None:
    async def forget(call: Operation, proceed: Next) -> Any:
        proceed(call)

    async def body(ctx: WorkflowContext) -> None:
        await ctx.step("charge")

    code, message = failure_of(decide(body, Around(forget)))
    assert code == "never-awaited"
    assert f"proceed(...) was called at {line_of(forget, 1)}" in message


def test_an_operation_cannot_be_exchanged_for_another_kind() -> None:
    kept: list[Operation] = []

    async def exchange(call: Operation, proceed: Next) -> Any:
        kept.append(call)
        return await proceed(kept[0])

    async def body(ctx: WorkflowContext) -> None:
        await ctx.step("charge")
        await ctx.sleep(1)

    code, message = failure_of(
        decide(body, Around(exchange), operator=history(called(0, "charge")))
    )
    assert code == "interceptor"
    assert "proceeded with ctx.step('charge') in place of ctx.sleep(1)" in message


def test_what_an_operation_does_not_have_cannot_be_replaced() -> None:
    raised: list[Exception] = []

    def change(call: Operation, proceed: Callable[[Operation], Any]) -> Any:
        for changes in ({"name": "x"}, {"input": 1}):
            with pytest.raises(InterceptorError) as caught:
                call.replace(**changes)
            raised.append(caught.value)
        return proceed(call)

    async def body(ctx: WorkflowContext) -> None:
        ctx.now()

    decide(body, AroundImmediate(change))
    assert [str(each) for each in raised] == [
        "ctx.now() has no name that could be replaced",
        "ctx.now() has no input that could be replaced",
    ]
