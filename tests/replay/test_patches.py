"""Which way a run takes through a body that was changed under the same version."""

import asyncio

from msgspec import Raw

from durable_worker import WorkflowContext
from durable_worker.protocol.commands import DecisionStatus, RecordStep, ScheduleStep
from durable_worker.replay.operations import DELIVERED, ORDERED_HISTORY
from tests.replay.model import Body, ModelOperator, turn


async def before(ctx: WorkflowContext) -> str:
    return f"{await ctx.step('a')} {await ctx.step('b')}"


async def after(ctx: WorkflowContext) -> str:
    first = await ctx.step("a")
    if ctx.patched("check"):
        first = f"{first} {await ctx.step('check')}"
    return f"{first} {await ctx.step('b')}"


def names(body: Body, operator: ModelOperator) -> list[str]:
    commands = turn(body, operator).commands
    return [each.name for each in commands if isinstance(each, (ScheduleStep, RecordStep))]


def answer(operator: ModelOperator) -> None:
    for seq, command in sorted(operator.pending.items()):
        operator.resolve(seq, getattr(command, "name", None))


def test_a_run_that_has_not_come_there_takes_the_new_way_and_keeps_to_it() -> None:
    operator = ModelOperator()
    assert names(before, operator) == ["a"]
    answer(operator)
    decision = turn(after, operator)
    assert decision.commands == [
        RecordStep(seq=1, name="patch:check", output=Raw(b"true")),
        ScheduleStep(seq=2, name="check", group="default"),
    ]
    answer(operator)
    assert names(after, operator) == ["b"]
    answer(operator)
    assert bytes(turn(after, operator).output) == b'"a check b"'


def test_a_run_that_was_there_on_the_old_code_keeps_to_the_old_way() -> None:
    operator = ModelOperator()
    for _ in range(2):
        turn(before, operator)
        answer(operator)
    assert bytes(turn(after, operator).output) == b'"a b"'


def test_a_pending_operation_that_history_does_not_show_is_told_by_what_came_beside_it() -> None:
    async def parallel(ctx: WorkflowContext, body: Body) -> list[str]:
        return list(await asyncio.gather(body(ctx), ctx.step("c")))

    async def old(ctx: WorkflowContext) -> list[str]:
        return await parallel(ctx, before)

    async def new(ctx: WorkflowContext) -> list[str]:
        return await parallel(ctx, after)

    operator = ModelOperator()
    turn(old, operator)
    operator.resolve(0, "a")
    assert names(old, operator) == ["c", DELIVERED, "b"]
    # Now b is pending at seq 3: neither what comes beside it nor the same turn again may lose it.
    assert names(new, operator) == ["c", "b"]
    operator.resolve(1, "c")
    assert names(new, operator) == ["b"]
    answer(operator)
    assert bytes(turn(new, operator).output) == b'["a b","c"]'


def in_order() -> ModelOperator:
    return ModelOperator(capabilities=[ORDERED_HISTORY])


def test_where_results_are_ordered_a_run_takes_the_new_way_unless_a_decision_has_been_there() -> (
    None
):
    async def old(ctx: WorkflowContext) -> list[str]:
        return list(await asyncio.gather(before(ctx), ctx.step("c"), ctx.step("d")))

    async def new(ctx: WorkflowContext) -> list[str]:
        return list(await asyncio.gather(after(ctx), ctx.step("c"), ctx.step("d")))

    fresh = in_order()
    turn(old, fresh)
    fresh.resolve(0, "a")
    fresh.resolve(2, "d")
    assert names(new, fresh) == ["c", "patch:check", "check"]

    was_there = in_order()
    turn(old, was_there)
    was_there.resolve(0, "a")
    turn(old, was_there)
    was_there.resolve(2, "d")
    assert names(new, was_there) == ["c", "b"]


def test_where_results_are_ordered_the_same_turn_again_does_not_take_the_new_way() -> None:
    operator = in_order()
    turn(before, operator)
    answer(operator)
    turn(before, operator)
    assert names(after, operator) == ["b"]


def test_the_late_result_of_a_step_that_was_given_up_leaves_it_in_doubt() -> None:
    async def begin(ctx: WorkflowContext) -> None:
        given_up = asyncio.ensure_future(ctx.step("given up"))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.sleep(0)

    async def old(ctx: WorkflowContext) -> str:
        await begin(ctx)
        return await before(ctx)

    async def new(ctx: WorkflowContext) -> str:
        await begin(ctx)
        return await after(ctx)

    operator = ModelOperator()
    turn(old, operator)
    operator.resolve(1, "a")
    assert names(old, operator) == ["b"]
    # What comes now could have come before b was asked for. It did not.
    operator.pending[0] = ScheduleStep(seq=0, name="given up", group="default")
    operator.resolve(0, "late")
    assert names(new, operator) == ["b"]


def test_a_result_that_is_still_to_be_delivered_elsewhere_leaves_it_in_doubt() -> None:
    async def begin(ctx: WorkflowContext) -> str:
        try:
            await ctx.wait_signal("go", timeout=3)
        except TimeoutError:
            await ctx.step("remind")
        waiting = asyncio.ensure_future(ctx.wait_signal("go"))
        await asyncio.sleep(0)
        return str(waiting)

    async def old(ctx: WorkflowContext) -> str:
        await begin(ctx)
        return str(await ctx.step("b"))

    async def new(ctx: WorkflowContext) -> str:
        await begin(ctx)
        if ctx.patched("check"):
            await ctx.step("check")
        return str(await ctx.step("b"))

    operator = ModelOperator()
    turn(old, operator)
    operator.resolve(1)
    turn(old, operator)
    remind = next(seq for seq, each in operator.pending.items() if isinstance(each, ScheduleStep))
    operator.resolve(remind)
    assert names(old, operator) == ["b"]
    operator.resolve(0, "gone")  # the wait that was taken up again
    decision = turn(new, operator)
    assert decision.error is None
    assert [each.name for each in decision.commands if isinstance(each, ScheduleStep)] == ["b"]


def test_an_answer_is_given_once_for_each_id() -> None:
    async def old(ctx: WorkflowContext) -> str:
        await ctx.step("a")
        await ctx.step("b")
        return "old"

    async def new(ctx: WorkflowContext) -> str:
        first = ctx.patched("p")
        await ctx.step("a")
        await ctx.step("b")
        return f"{first} {ctx.patched('p')} {ctx.patched('q')}"

    operator = ModelOperator()
    for _ in range(2):
        turn(old, operator)
        answer(operator)
    for _ in range(2):
        decision = turn(new, operator)
        assert decision.status is DecisionStatus.COMPLETED
        assert bytes(decision.output) == b'"False False True"'
    assert operator.history[2].name == "patch:q"


def test_two_patches_at_one_place_are_told_apart() -> None:
    async def new(ctx: WorkflowContext) -> str:
        await ctx.step("a")
        answers = [ctx.patched("p"), ctx.patched("q")]
        await ctx.step("b")
        return str(answers)

    operator = ModelOperator()
    for _ in range(2):
        turn(new, operator)
        answer(operator)
    assert bytes(turn(new, operator).output) == b'"[True, True]"'
    assert [operator.history[seq].name for seq in (1, 2)] == ["patch:p", "patch:q"]


def test_a_new_run_takes_the_new_way_though_results_beside_it_come_together() -> None:
    async def new(ctx: WorkflowContext) -> list[str]:
        return list(await asyncio.gather(after(ctx), ctx.step("c")))

    operator = ModelOperator()
    turn(new, operator)
    answer(operator)
    assert names(new, operator) == ["patch:check", "check"]


def test_a_result_that_came_alone_and_left_no_marker_proves_that_the_run_was_not_there() -> None:
    async def new(ctx: WorkflowContext) -> list[str]:
        given_up = asyncio.ensure_future(ctx.step("given up"))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.sleep(0)
        return list(await asyncio.gather(after(ctx), ctx.step("c")))

    operator = ModelOperator()
    turn(new, operator)
    operator.pending[0] = ScheduleStep(seq=0, name="given up", group="default")
    operator.resolve(0, "late")
    operator.resolve(1, "a")
    assert names(new, operator) == ["c", DELIVERED, "patch:check", "check"]
