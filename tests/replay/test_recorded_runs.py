"""Would today's code go on with a run where it stands, and end as it has ended?"""

import asyncio
from typing import Any

import pytest
from msgspec import Raw

from durable_worker import NondeterminismError, RegistrationError, StepFailedError, WorkflowContext
from durable_worker.protocol.commands import DecisionStatus
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.runs import RunStatus
from durable_worker.protocol.tasks import HistoryEvent, HistoryKind
from durable_worker.replay.timeline import RecordedRun, RunEnd
from durable_worker.replay.witness import Asked
from durable_worker.worker.replaying import mismatch_with
from tests.replay.model import ModelOperator, full_turn
from tests.replay.test_mistakes import Body, call, serving

OUT = RunEnd(status=RunStatus.COMPLETED, output=Raw(b'"out"'))


def recorded(
    *history: HistoryEvent, waiting: dict[int, Asked] | None = None, end: RunEnd | None = None
) -> RecordedRun:
    operator = ModelOperator(history={event.seq: event for event in history}, input="x")
    return RecordedRun(task=operator.task(), waiting=waiting or {}, end=end)


def difference(body: Body, run: RecordedRun, **options: Any) -> tuple[int, str, str] | None:
    error = mismatch_with(serving(body), run, **options)
    return None if error is None else (error.seq, error.recorded, error.asked)


def step(name: str) -> Asked:
    return Asked(HistoryKind.CALL, name)


SHIP_IS_OPEN = {1: step("ship")}


async def charge_then_ship(ctx: WorkflowContext) -> Any:
    await ctx.step("charge")
    await ctx.step("ship")
    return "out"


# Runs that go on


def test_the_code_that_made_a_run_fits_it() -> None:
    assert difference(charge_then_ship, recorded(call(0, "charge"), waiting=SHIP_IS_OPEN)) is None


def test_a_step_that_was_renamed_no_longer_fits() -> None:
    async def body(ctx: WorkflowContext) -> Any:
        await ctx.step("pay")
        await ctx.step("ship")

    run = recorded(call(0, "charge"), waiting=SHIP_IS_OPEN)
    assert difference(body, run) == (0, "step 'charge'", "step 'pay'")


def test_steps_in_another_order_no_longer_fit() -> None:
    async def body(ctx: WorkflowContext) -> Any:
        await ctx.step("ship")
        await ctx.step("charge")

    run = recorded(call(0, "charge"), call(1, "ship"))
    assert difference(body, run) == (0, "step 'charge'", "step 'ship'")


def test_a_step_before_an_open_one_no_longer_fits() -> None:
    async def body(ctx: WorkflowContext) -> Any:
        await ctx.step("charge")
        await ctx.step("audit")
        await ctx.step("ship")

    run = recorded(call(0, "charge"), waiting=SHIP_IS_OPEN)
    assert difference(body, run) == (1, "step 'ship' (open)", "step 'audit'")


def test_a_value_before_an_open_step_no_longer_fits_and_is_not_made() -> None:
    made: list[int] = []

    async def body(ctx: WorkflowContext) -> Any:
        await ctx.step("charge")
        ctx.side_effect(lambda: made.append(1))
        await ctx.step("ship")

    run = recorded(call(0, "charge"), waiting=SHIP_IS_OPEN)
    assert difference(body, run) == (1, "step 'ship' (open)", "recorded value 'sideEffect'")
    assert made == []


def test_a_local_step_before_an_open_step_no_longer_fits() -> None:
    async def pack() -> None: ...

    async def body(ctx: WorkflowContext) -> Any:
        await ctx.step("charge")
        await ctx.local_step(pack)
        await ctx.step("ship")

    worker = serving(body)
    worker.step("pack")(pack)
    error = mismatch_with(worker, recorded(call(0, "charge"), waiting=SHIP_IS_OPEN))
    assert error is not None
    assert (error.seq, error.asked) == (1, "recorded value 'pack'")


def test_a_value_between_what_is_open_no_longer_fits() -> None:
    async def body(ctx: WorkflowContext) -> Any:
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.step("charge"))
            ctx.side_effect(lambda: 1)
            group.create_task(ctx.step("ship"))

    run = recorded(waiting={0: step("charge"), 1: step("ship")})
    assert difference(body, run) == (0, "step 'charge' (open)", "recorded value 'sideEffect'")


def test_a_value_where_nothing_is_recorded_though_more_was_asked_for_no_longer_fits() -> None:
    async def body(ctx: WorkflowContext) -> Any:
        await ctx.step("charge")
        ctx.side_effect(lambda: 1)
        await ctx.step("ship")

    run = recorded(call(0, "charge"), waiting={2: step("ship")})
    assert difference(body, run) == (1, "nothing", "recorded value 'sideEffect'")


def test_an_open_step_that_was_removed_no_longer_fits() -> None:
    async def body(ctx: WorkflowContext) -> Any:
        await ctx.step("charge")

    run = recorded(call(0, "charge"), waiting=SHIP_IS_OPEN)
    assert difference(body, run) == (
        1,
        "step 'ship' (open)",
        "nothing more: the body has ended",
    )


def test_a_step_that_was_removed_beside_an_open_one_no_longer_fits() -> None:
    async def body(ctx: WorkflowContext) -> Any:
        await ctx.step("charge")

    run = recorded(waiting={0: step("charge"), 1: step("ship")})
    assert difference(body, run) == (
        1,
        "step 'ship' (open)",
        "nothing more: it waits for step 'charge'",
    )


def test_steps_after_an_open_one_may_change() -> None:
    async def body(ctx: WorkflowContext) -> Any:
        await ctx.step("charge")
        await ctx.step("ship")
        await ctx.step("thank")

    assert difference(body, recorded(call(0, "charge"), waiting=SHIP_IS_OPEN)) is None


def test_a_patch_fits_as_it_will_answer_once_the_open_step_is_resolved() -> None:
    async def body(ctx: WorkflowContext) -> Any:
        await ctx.step("charge")
        if ctx.patched("audit"):
            await ctx.step("audit")
        await ctx.step("ship")

    run = recorded(call(0, "charge"), waiting=SHIP_IS_OPEN)
    assert difference(body, run) is None
    later = ModelOperator(history={0: call(0, "charge"), 1: call(1, "ship")})
    assert full_turn(serving(body), later.task()).status is DecisionStatus.COMPLETED


def test_new_ground_is_the_end_of_the_check_and_nothing_is_made_there() -> None:
    made: list[int] = []

    async def body(ctx: WorkflowContext) -> Any:
        await ctx.step("charge")
        ctx.side_effect(lambda: made.append(1))
        raise AssertionError("the check goes no further")

    assert difference(body, recorded(call(0, "charge"))) is None
    assert made == []


def test_a_run_that_has_not_begun_fits_anything() -> None:
    assert difference(charge_then_ship, recorded()) is None


def test_another_signal_than_an_open_wait_is_for_no_longer_fits() -> None:
    async def body(ctx: WorkflowContext) -> Any:
        await ctx.wait_signal("approve")

    run = recorded(waiting={0: Asked(HistoryKind.SIGNAL, "confirm")})
    assert difference(body, run) == (
        0,
        "a wait for signal 'confirm' (open)",
        "a wait for signal 'approve'",
    )


def test_open_waits_timers_children_and_breakpoints_fit_the_code_that_made_them() -> None:
    async def body(ctx: WorkflowContext) -> Any:
        hook = ctx.webhook()
        child = ctx.start_child("parcel")
        await asyncio.gather(
            ctx.wait_signal("go", timeout=60), ctx.sleep(5), ctx.breakpoint("here"), hook, child
        )

    waiting = {
        0: Asked(HistoryKind.SIGNAL, "wh:run-1:0"),
        1: Asked(HistoryKind.CHILD, "parcel"),
        2: Asked(HistoryKind.SIGNAL, "go"),
        3: Asked(HistoryKind.TIMER, "sleep:3"),
        4: Asked(HistoryKind.TIMER, "sleep:4"),
        5: Asked(HistoryKind.SIGNAL, "bp:run-1:5"),
    }
    assert difference(body, recorded(waiting=waiting)) is None


def test_the_timer_that_lets_a_child_begin_before_the_body_ends_fits() -> None:
    async def body(ctx: WorkflowContext) -> Any:
        ctx.start_child("parcel")

    timer = {1: Asked(HistoryKind.TIMER, "sleep:1")}
    child = {0: Asked(HistoryKind.CHILD, "parcel")}
    assert difference(body, recorded(waiting={**child, **timer})) is None
    ended = HistoryEvent(seq=0, kind=HistoryKind.CHILD)
    assert difference(body, recorded(ended, waiting=timer)) is None


def test_a_child_in_place_of_an_open_step_of_the_same_name_no_longer_fits() -> None:
    async def body(ctx: WorkflowContext) -> Any:
        await ctx.step("charge")
        await ctx.child("ship")

    run = recorded(call(0, "charge"), waiting=SHIP_IS_OPEN)
    assert difference(body, run) == (1, "step 'ship' (open)", "child workflow 'ship'")


def test_a_wait_that_was_given_up_still_fits() -> None:
    async def body(ctx: WorkflowContext) -> Any:
        try:
            await ctx.wait_signal("go", timeout=1)
        except TimeoutError:
            await ctx.step("remind")

    timer = HistoryEvent(seq=1, kind=HistoryKind.TIMER, name="sleep:1")
    marker = HistoryEvent(
        seq=2, kind=HistoryKind.STEP, name="durable:delivered", output=Raw(b"[1]")
    )
    waiting = {0: Asked(HistoryKind.SIGNAL, "go"), 3: step("remind")}
    assert difference(body, recorded(timer, marker, waiting=waiting)) is None


def test_a_body_that_can_no_longer_read_its_input_no_longer_fits() -> None:
    async def body(ctx: WorkflowContext, number: int) -> Any:
        await ctx.step("charge")

    assert difference(body, recorded(waiting={0: step("charge")})) == (
        0,
        "step 'charge' (open)",
        "nothing more: the body has failed: the input of 'flow': Expected `int`, got `str`",
    )
    error = mismatch_with(serving(body), recorded())
    assert error is not None
    assert error.recorded == "a run that goes on"
    assert error.asked.endswith("the input of 'flow': Expected `int`, got `str`")
    assert error.location == f"{__file__}:{body.__code__.co_firstlineno}"


def test_a_body_that_may_fail_beyond_its_history_fits() -> None:
    async def body(ctx: WorkflowContext) -> Any:
        await ctx.step("charge")
        raise ValueError("declined")

    assert difference(body, recorded(call(0, "charge"))) is None


# Runs that have ended


def test_a_run_that_has_ended_fits_the_code_that_made_it() -> None:
    history = [call(0, "charge"), call(1, "ship")]
    assert difference(charge_then_ship, recorded(*history, end=OUT)) is None


def test_another_output_is_a_difference_unless_it_is_not_asked_for() -> None:
    end = RunEnd(status=RunStatus.COMPLETED, output=Raw(b'"before"'))
    run = recorded(call(0, "charge"), call(1, "ship"), end=end)
    assert difference(charge_then_ship, run) == (
        2,
        'the end: completed with "before"',
        'the end: completed with "out"',
    )
    assert difference(charge_then_ship, run, compares_end=False) is None


def test_a_body_that_asks_for_more_than_a_run_that_has_ended_no_longer_fits() -> None:
    run = recorded(call(0, "charge"), end=OUT)
    for options in ({}, {"compares_end": False}):
        assert difference(charge_then_ship, run, **options) == (
            1,
            'the end: completed with "out"',
            "step 'ship'",
        )


def test_a_body_that_makes_more_than_a_run_that_has_ended_no_longer_fits() -> None:
    async def body(ctx: WorkflowContext) -> Any:
        ctx.now()
        return "out"

    assert difference(body, recorded(end=OUT)) == (
        0,
        'the end: completed with "out"',
        "recorded value 'now#0'",
    )


async def declining(ctx: WorkflowContext) -> Any:
    await ctx.step("charge")


DECLINED = HistoryEvent(
    seq=0, kind=HistoryKind.CALL, name="charge", error=Failure(message="no", code="declined")
)


def test_another_failure_than_a_run_had_is_a_difference() -> None:
    message = str(StepFailedError("charge", "no", seq=0, code="declined"))
    failed = Failure(message=message, code="declined")
    run = recorded(DECLINED, end=RunEnd(status=RunStatus.FAILED, error=failed))
    assert difference(declining, run) is None
    other = Failure(message=message, code="other")
    run = recorded(DECLINED, end=RunEnd(status=RunStatus.FAILED, error=other))
    assert difference(declining, run) == (
        1,
        f"the end: failed: {message} [other]",
        f"the end: failed: {message} [declined]",
    )
    assert difference(declining, run, compares_end=False) is None


def test_a_failure_where_a_run_had_completed_is_a_difference_whatever_is_compared() -> None:
    run = recorded(DECLINED, end=OUT)
    assert difference(declining, run, compares_end=False) is not None


def test_a_patch_that_came_after_a_run_had_ended_is_no_difference() -> None:
    async def body(ctx: WorkflowContext) -> Any:
        await ctx.step("charge")
        if ctx.patched("later"):
            await ctx.step("audit")
        return "out"

    assert difference(body, recorded(call(0, "charge"), end=OUT)) is None


def test_the_end_of_a_run_that_failed_without_its_body_is_not_compared() -> None:
    failed = Failure(message="the history does not fit", code="nondeterminism")
    run = recorded(
        call(0, "charge"),
        waiting=SHIP_IS_OPEN,
        end=RunEnd(status=RunStatus.FAILED, error=failed),
    )
    assert difference(charge_then_ship, run) is None


def test_what_is_not_registered_is_named_beside_what_is() -> None:
    worker = serving(charge_then_ship)
    run = recorded()
    worker.workflows["other", "2"] = worker.workflows.pop(("flow", "1"))
    with pytest.raises(RegistrationError, match="'flow' is not registered on this worker, which"):
        mismatch_with(worker, run)
    worker.workflows["flow", "2"] = worker.workflows.pop(("other", "2"))
    with pytest.raises(RegistrationError, match=r"version '1' of workflow 'flow'.*only 2; keep"):
        mismatch_with(worker, run)


def test_the_lines_of_a_difference_hold_what_is_open() -> None:
    async def body(ctx: WorkflowContext) -> Any:
        await ctx.step("charge")
        await ctx.step("audit")

    run = recorded(call(0, "charge"), waiting={1: step("ship"), 2: step("pack")})
    error = mismatch_with(serving(body), run)
    assert isinstance(error, NondeterminismError)
    assert [(each.seq, each.history, each.code, each.differs) for each in error.lines] == [
        (0, "step 'charge'", "step 'charge'", False),
        (1, "step 'ship' (open)", "step 'audit'", True),
        (2, "step 'pack' (open)", None, False),
    ]
