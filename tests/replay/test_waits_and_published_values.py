"""Webhooks, updates, events and published values: names that existing operators understand."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import pytest
from msgspec import Raw, Struct

from durable_worker import PayloadError, RegistrationError, Webhook, Worker, WorkflowContext
from durable_worker.protocol.commands import (
    AnyCommand,
    DecisionStatus,
    RecordStep,
    ScheduleStep,
    StartTimer,
    WaitSignal,
    WorkflowDecision,
)
from durable_worker.replay.operations import DELIVERED, DURABLE_TIMERS
from tests.replay.model import ModelOperator, full_turn

Body = Callable[[WorkflowContext], Coroutine[Any, Any, Any]]


class Approval(Struct):
    by: str


def serving(body: Body) -> Worker:
    worker = Worker()
    worker.workflow("flow")(body)
    return worker


def turn(body: Body, operator: ModelOperator) -> WorkflowDecision:
    """One turn from the top, applied."""
    decision = full_turn(serving(body), operator.task(), now_ms=operator.now_ms)
    operator.apply(decision)
    return decision


def asked(body: Body) -> list[AnyCommand]:
    return turn(body, ModelOperator()).commands


# Updates, events and published values


def test_an_update_is_a_signal_named_after_the_run() -> None:
    async def body(ctx: WorkflowContext) -> Any:
        return await ctx.wait_update("approve", returns=Approval)

    assert asked(body) == [WaitSignal(seq=0, signal="update:run-1:approve")]


async def approving(ctx: WorkflowContext) -> str:
    def known(approval: Approval) -> bool:
        if approval.by == "nobody":
            raise ValueError("nobody is not a person")
        return approval.by != "Eve"

    try:
        approval = await ctx.wait_update("approve", validate=known, timeout=60, returns=Approval)
    except TimeoutError:
        return "too late"
    return approval.by


def test_an_update_that_is_rejected_is_published_with_the_reason_and_waited_for_again() -> None:
    operator = ModelOperator(capabilities=[DURABLE_TIMERS])
    timer, wait = StartTimer(seq=0, ms=60_000), WaitSignal(seq=1, signal="update:run-1:approve")
    assert turn(approving, operator).commands == [timer, wait]
    seq = 1
    for argument, reason in (
        ({"by": "Eve"}, b'"the argument is not valid"'),
        ({"by": "nobody"}, b'"nobody is not a person"'),
        ({"bye": 1}, b'"the argument: Object missing required field `by`"'),
    ):
        operator.resolve(seq, argument)
        marker, published, again = turn(approving, operator).commands[1:]
        assert isinstance(marker, RecordStep)
        assert marker.name == "durable:delivered"
        name = "event:update-rejected:approve"
        assert published == RecordStep(seq=seq + 2, name=name, output=Raw(reason))
        assert again == WaitSignal(seq=seq + 3, signal="update:run-1:approve")
        seq += 3
    operator.resolve(seq, {"by": "Ada"})
    assert bytes(turn(approving, operator).output) == b'"Ada"'


def test_a_validator_that_would_never_decide_is_refused() -> None:
    async def body(ctx: WorkflowContext) -> None:
        async def later(argument: object) -> None: ...

        await ctx.wait_update("approve", validate=later)

    error = turn(body, ModelOperator()).error
    assert error is not None
    assert (error.code, "must not be `async`" in error.message) == ("registration", True)


def test_rejected_updates_do_not_move_the_deadline() -> None:
    operator = ModelOperator()
    turn(approving, operator)
    operator.resolve(1, {"by": "Eve"})
    turn(approving, operator)
    operator.resolve(0)
    assert bytes(turn(approving, operator).output) == b'"too late"'


@pytest.mark.parametrize(
    ("name", "match", "token"),
    [
        (
            "orders.paid",
            {"order": "o-1", "amount": 12.5, "tags": ["ä"]},
            "event:b3JkZXJzLnBhaWQ="
            ":eyJvcmRlciI6Im8tMSIsImFtb3VudCI6MTIuNSwidGFncyI6WyLDpCJdfQ==:run-1#0",
        ),
        ("Grüße", None, "event:R3LDvMOfZQ==:e30=:run-1#0"),
        ("Grüße", {}, "event:R3LDvMOfZQ==:e30=:run-1#0"),
        ("a:b", {"k": None}, "event:YTpi:eyJrIjpudWxsfQ==:run-1#0"),
    ],
)
def test_an_event_is_a_signal_whose_name_is_what_the_engine_writes_for_its_own_waits(
    name: str, match: dict[str, Any] | None, token: str
) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        return await ctx.wait_event(name, match=match)

    assert asked(body) == [WaitSignal(seq=0, signal=token)]


def test_each_wait_for_an_event_has_a_signal_of_its_own() -> None:
    async def body(ctx: WorkflowContext) -> list[Any]:
        return list(await asyncio.gather(ctx.wait_event("e"), ctx.step("s"), ctx.wait_event("e")))

    signals = [each.signal for each in asked(body) if isinstance(each, WaitSignal)]
    assert signals == ["event:ZQ==:e30=:run-1#0", "event:ZQ==:e30=:run-1#2"]


@pytest.mark.parametrize("kind", ["update", "event"])
def test_a_wait_that_times_out_is_taken_up_by_the_next_wait_for_the_same(kind: str) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        def wait(timeout: timedelta | None = None) -> Coroutine[Any, Any, Approval]:
            if kind == "update":
                return ctx.wait_update("a", timeout=timeout, returns=Approval)
            return ctx.wait_event("a", match={"k": 1}, timeout=timeout, returns=Approval)

        try:
            return await wait(timedelta(seconds=3))
        except TimeoutError:
            await ctx.step("remind")
        return (await wait()).by

    operator = ModelOperator()
    first = turn(body, operator).commands
    assert [type(each) for each in first] == [WaitSignal, StartTimer, RecordStep]
    operator.resolve(1)
    turn(body, operator)
    operator.resolve(0, Approval("Ada"))  # too late for the first wait
    remind = next(seq for seq, each in operator.pending.items() if isinstance(each, ScheduleStep))
    operator.resolve(remind)
    assert bytes(turn(body, operator).output) == b'"Ada"'


def test_a_wait_for_an_event_is_not_taken_up_by_one_with_another_match() -> None:
    async def body(ctx: WorkflowContext) -> Any:
        try:
            return await ctx.wait_event("e", match={"k": 1}, timeout=3)
        except TimeoutError:
            return await ctx.wait_event("e", match={"k": 2})

    operator = ModelOperator()
    turn(body, operator)
    operator.resolve(1)
    again = [each for each in turn(body, operator).commands if isinstance(each, WaitSignal)]
    assert [each.seq for each in again] == [4]


def test_a_published_value_is_recorded_under_its_key_once() -> None:
    async def body(ctx: WorkflowContext) -> None:
        ctx.set_event("progress", {"done": 1})
        await ctx.step("s")
        ctx.set_event("progress", None)
        ctx.set_event("progress", Approval("Ada"))

    operator = ModelOperator()
    assert turn(body, operator).commands == [
        RecordStep(seq=0, name="event:progress", output=Raw(b'{"done":1}')),
        ScheduleStep(seq=1, name="s", group="default"),
    ]
    operator.resolve(1)
    assert turn(body, operator).commands == [
        RecordStep(seq=2, name="event:progress"),
        RecordStep(seq=3, name="event:progress", output=Raw(b'{"by":"Ada"}')),
    ]


def test_another_key_than_history_holds_is_a_mismatch() -> None:
    async def before(ctx: WorkflowContext) -> None:
        ctx.set_event("a", 1)
        await ctx.step("s")

    async def after(ctx: WorkflowContext) -> None:
        ctx.set_event("b", 1)
        await ctx.step("s")

    operator = ModelOperator()
    turn(before, operator)
    decision = turn(after, operator)
    assert decision.error is not None
    assert "history holds recorded value 'event:a'" in decision.error.message
    assert "the code asks for recorded value 'event:b'" in decision.error.message


def test_a_published_value_without_json_form_can_be_caught_and_leaves_no_gap() -> None:
    async def body(ctx: WorkflowContext) -> str:
        with pytest.raises(PayloadError, match="published value 'bad'"):
            ctx.set_event("bad", object())
        return str(await ctx.step("s"))

    operator = ModelOperator()
    assert [each.seq for each in turn(body, operator).commands] == [0]
    operator.resolve(0, "fine")
    assert bytes(turn(body, operator).output) == b'"fine"'


@pytest.mark.parametrize(
    "ask",
    [
        lambda ctx: ctx.set_event("", 1),
        lambda ctx: ctx.wait_update(""),
        lambda ctx: ctx.wait_event("\ud800"),
    ],
)
def test_a_name_that_the_wire_cannot_carry_is_refused_where_it_is_passed(ask: Any) -> None:
    async def body(ctx: WorkflowContext) -> None:
        with pytest.raises(RegistrationError):
            ask(ctx)

    assert turn(body, ModelOperator()).error is None


# Webhooks


async def refund_by_callback(ctx: WorkflowContext) -> list[Any]:
    hook = ctx.webhook(returns=Approval)
    asked_for = await ctx.step("ask", hook.token)
    return [asked_for, (await hook).by]


def test_a_webhook_is_asked_for_with_the_step_that_is_told_of_it() -> None:
    assert asked(refund_by_callback) == [
        WaitSignal(seq=0, signal="wh:run-1:0"),
        ScheduleStep(seq=1, name="ask", group="default", input=Raw(b'"wh:run-1:0"')),
    ]


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_a_callback_may_come_before_or_after_the_body_awaits_it(order: list[int]) -> None:
    operator = ModelOperator()
    for seq in order:
        decision = turn(refund_by_callback, operator)
        assert decision.status is DecisionStatus.CONTINUE
        operator.resolve(seq, Approval("Ada") if seq == 0 else "asked")
    assert bytes(turn(refund_by_callback, operator).output) == b'["asked","Ada"]'


def test_steps_beside_an_outstanding_webhook_replay_as_they_came() -> None:
    async def body(ctx: WorkflowContext) -> list[Any]:
        hook = ctx.webhook()
        done = [await ctx.step("one"), await ctx.step("two")]
        return [*done, await hook]

    operator = ModelOperator()
    turn(body, operator)
    operator.resolve(1, "one")
    second = turn(body, operator).commands
    markers = [each for each in second if isinstance(each, RecordStep)]
    assert [(each.seq, each.name, each.output) for each in markers] == [(2, DELIVERED, Raw(b"[1]"))]
    # Had the callback been delivered with the first step, a replay would number nothing else, but
    # it must not: the marker tells that the first step came alone.
    operator.resolve(0, "called back")
    third = turn(body, operator).commands
    assert [each.seq for each in third] == [3]
    operator.resolve(3, "two")
    assert bytes(turn(body, operator).output) == b'["one","two","called back"]'


def test_a_webhook_that_is_never_awaited_does_no_harm() -> None:
    async def body(ctx: WorkflowContext) -> str:
        ctx.webhook()
        return str(await ctx.step("s"))

    operator = ModelOperator()
    turn(body, operator)
    operator.resolve(1, "done")
    assert bytes(turn(body, operator).output) == b'"done"'
    operator.resolve(0, "late")
    assert bytes(full_turn(serving(body), operator.task()).output) == b'"done"'


def test_a_wait_for_a_webhook_that_times_out_leaves_it_open_for_the_next() -> None:
    async def body(ctx: WorkflowContext) -> Any:
        hook = ctx.webhook()
        try:
            return await hook.wait(timeout=timedelta(hours=1))
        except TimeoutError:
            ctx.set_event("state", "overdue")
        return ["late", await hook]

    operator = ModelOperator()
    turn(body, operator)
    operator.resolve(1)
    second = turn(body, operator)
    assert WaitSignal(seq=0, signal="wh:run-1:0") in second.commands
    operator.resolve(0, 5)
    assert bytes(turn(body, operator).output) == b'["late",5]'


def test_several_parts_of_a_body_may_wait_for_one_webhook_and_one_may_give_up() -> None:
    async def body(ctx: WorkflowContext) -> list[Any]:
        hook = ctx.webhook(returns=int)
        given_up = asyncio.ensure_future(hook.wait())
        await ctx.step("s")
        given_up.cancel()
        return list(await asyncio.gather(hook, hook.wait(), ctx.step("t")))

    operator = ModelOperator()
    for seq, value in [(1, None), (0, 7), (3, "t")]:
        assert turn(body, operator).status is DecisionStatus.CONTINUE
        operator.resolve(seq, value)
    assert bytes(turn(body, operator).output) == b'[7,7,"t"]'


def test_a_callback_that_does_not_fit_fails_where_it_is_awaited() -> None:
    async def body(ctx: WorkflowContext) -> str:
        hook: Webhook[int] = ctx.webhook(returns=int)
        try:
            await hook
        except PayloadError as error:
            return str(error)
        return "taken"

    operator = ModelOperator()
    turn(body, operator)
    operator.resolve(0, "seven")
    output = bytes(turn(body, operator).output).decode()
    assert "the payload of webhook 'wh:run-1:0'" in output


def test_a_wait_for_a_webhook_that_nobody_awaits_is_a_mistake_that_is_named() -> None:
    async def body(ctx: WorkflowContext) -> None:
        ctx.webhook().wait()  # pyright: ignore[reportUnusedCoroutine]

    error = turn(body, ModelOperator()).error
    assert error is not None
    assert error.code == "never-awaited"
    assert "ctx.webhook().wait(...) was called at" in error.message


def test_a_webhook_where_history_holds_something_else_is_a_mismatch() -> None:
    async def before(ctx: WorkflowContext) -> None:
        await ctx.step("s")
        await ctx.step("t")

    operator = ModelOperator()
    turn(before, operator)
    operator.resolve(0)
    error = turn(refund_by_callback, operator).error
    assert error is not None
    assert "history holds step 's', the code asks for a wait for signal 'wh:run-1:0'" in (
        error.message
    )
