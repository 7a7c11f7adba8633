"""A mismatch tells what history holds and what the code asks for, seq by seq, with the line."""

import asyncio
from typing import Any

from msgspec import Raw, json

from durable_worker import NondeterminismError, WorkflowContext, errors
from durable_worker.errors import DiffLine
from durable_worker.protocol.commands import WorkflowDecision
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.tasks import HistoryEvent, HistoryKind
from durable_worker.replay.diff import Mismatch, mismatch_in, side_by_side
from tests.replay.model import ModelOperator, full_turn
from tests.replay.test_mistakes import Body, call, serving


def line_of(body: Body, offset: int) -> str:
    return f"{__file__}:{body.__code__.co_firstlineno + offset}"


def decided(body: Body, *history: HistoryEvent) -> WorkflowDecision:
    operator = ModelOperator(history={event.seq: event for event in history})
    return full_turn(serving(body), operator.task())


def told(body: Body, *history: HistoryEvent) -> Mismatch:
    mismatch = mismatch_in(decided(body, *history).error)
    assert mismatch is not None
    return mismatch


def test_both_sides_are_told_around_the_mismatch_with_the_line_of_each_command() -> None:
    async def body(ctx: WorkflowContext) -> Any:
        await ctx.step("charge")
        ctx.side_effect(lambda: 1)
        await ctx.sleep(5)
        await ctx.step("ship")

    effect = HistoryEvent(seq=1, kind=HistoryKind.STEP, name="sideEffect", output=Raw(b"1"))
    timer = HistoryEvent(seq=2, kind=HistoryKind.TIMER, name="sleep:2")
    value = "recorded value 'sideEffect'"
    mismatch = told(body, call(0, "charge"), effect, timer, call(3, "pack"), call(4, "ship"))
    assert mismatch == Mismatch(
        seq=3,
        recorded="step 'pack'",
        asked="step 'ship'",
        location=line_of(body, 4),
        diff=(
            DiffLine(0, "step 'charge'", "step 'charge'", line_of(body, 1)),
            DiffLine(1, value, value, line_of(body, 2)),
            DiffLine(2, "a timer", "a timer", line_of(body, 3)),
            DiffLine(3, "step 'pack'", "step 'ship'", line_of(body, 4), differs=True),
            DiffLine(4, "step 'ship'"),
        ),
    )


def test_what_is_asked_for_side_by_side_is_told_beyond_the_first_difference() -> None:
    async def body(ctx: WorkflowContext) -> Any:
        await asyncio.gather(
            ctx.step("b"),
            ctx.step("a"),
            ctx.wait_signal("go"),
        )

    signal = HistoryEvent(seq=2, kind=HistoryKind.SIGNAL)
    assert told(body, call(0, "a"), call(1, "b"), signal).diff == (
        DiffLine(0, "step 'a'", "step 'b'", line_of(body, 2), differs=True),
        DiffLine(1, "step 'b'", "step 'a'", line_of(body, 3), differs=True),
        DiffLine(2, "a wait for a signal", "a wait for signal 'go'", line_of(body, 4)),
    )


def test_an_operation_in_a_task_of_its_own_is_told_with_the_line_that_made_it() -> None:
    async def body(ctx: WorkflowContext) -> Any:
        await asyncio.gather(ctx.step("a"))

    assert told(body, call(0, "b")).location == line_of(body, 1)


def test_no_line_outside_of_the_body_is_named() -> None:
    async def body(ctx: WorkflowContext) -> Any:
        await asyncio.gather(asyncio.sleep(5))

    assert told(body, call(0, "b")).location == "in library code"
    odd = HistoryEvent(seq=1, kind=HistoryKind.STEP, name="durable:delivered", output=Raw(b"[5]"))
    assert told(body, odd).location == "in library code"


def test_a_body_that_ends_too_early_is_told_with_the_place_where_it_is_defined() -> None:
    async def body(ctx: WorkflowContext) -> Any:
        await ctx.step("a")

    mismatch = told(body, call(0, "a"), call(1, "b"))
    assert mismatch.asked == "nothing more: the body has ended"
    assert mismatch.location == line_of(body, 0)
    assert [each.differs for each in mismatch.diff] == [False, True]


def test_a_body_that_fails_too_early_is_told_with_the_error_and_its_line() -> None:
    async def body(ctx: WorkflowContext) -> Any:
        await ctx.step("a")
        raise KeyError("sku")

    mismatch = told(body, call(0, "a"), call(1, "b"))
    assert mismatch.asked == "nothing more: the body has failed: 'sku'"
    assert mismatch.location == line_of(body, 2)


def test_what_the_replay_records_for_itself_is_no_difference() -> None:
    async def body(ctx: WorkflowContext) -> Any:
        async def branch(name: str) -> None:
            await ctx.step(name)
            await ctx.step(f"{name}2")

        await asyncio.gather(branch("a"), branch("b"))
        await ctx.step("end")

    marker = HistoryEvent(
        seq=2, kind=HistoryKind.STEP, name="durable:delivered", output=Raw(b"[1]")
    )
    history = [call(0, "a"), call(1, "b"), marker, call(3, "b2"), call(4, "a2"), call(5, "other")]
    mismatch = told(body, *history)
    assert mismatch.seq == 5
    marked = mismatch.diff[2]
    assert (marked.history, marked.code) == ("recorded value 'durable:delivered'",) * 2
    assert [each.differs for each in mismatch.diff] == [False] * 5 + [True]


def test_only_lines_near_the_mismatch_travel() -> None:
    async def body(ctx: WorkflowContext) -> Any:
        for number in range(100):
            await ctx.step(f"s{number}")

    history = [call(n, f"s{n}" if n != 50 else "odd") for n in range(100)]
    near = range(50 - errors.DIFF_LINES, 50 + errors.DIFF_LINES + 1)
    assert [each.seq for each in told(body, *history).diff] == list(near)


def test_a_mismatch_without_lines_is_a_failure_all_the_same() -> None:
    error = NondeterminismError(seq=1, recorded="a", asked="b", location="c:1")
    assert error.details == {"seq": 1, "recorded": "a", "asked": "b", "location": "c:1", "diff": ()}


def test_details_of_another_shape_are_no_mismatch() -> None:
    for details in (Raw(b'{"seq": "one"}'), Raw(b"[1]")):
        failure = Failure(message="m", code="nondeterminism", details=details)
        assert mismatch_in(failure) is None
    of_a_user = Failure(message="m", code="mine", details=Raw(json.encode(_MISMATCH)))
    assert mismatch_in(of_a_user) is None


_MISMATCH = Mismatch(seq=0, recorded="a", asked="b", location="c:1")


def test_the_text_shows_the_lines_around_the_mismatch_with_short_paths() -> None:
    lines = [
        DiffLine(seq, f"step 's{seq}'", f"step 's{seq}'", f"/home/me/app.py:{seq}", seq == 9)
        for seq in range(20)
    ]
    error = NondeterminismError(seq=9, recorded="a", asked="b", location="c:1", lines=lines)
    assert side_by_side(error, root="/home/me").splitlines() == [
        "   SEQ  HISTORY     CODE        LINE",
        "   ...",
        "   4    step 's4'   step 's4'   app.py:4",
        "   5    step 's5'   step 's5'   app.py:5",
        "   6    step 's6'   step 's6'   app.py:6",
        "   7    step 's7'   step 's7'   app.py:7",
        "   8    step 's8'   step 's8'   app.py:8",
        ">  9    step 's9'   step 's9'   app.py:9",
        "   10   step 's10'  step 's10'  app.py:10",
        "   11   step 's11'  step 's11'  app.py:11",
        "   12   step 's12'  step 's12'  app.py:12",
        "   13   step 's13'  step 's13'  app.py:13",
        "   14   step 's14'  step 's14'  app.py:14",
        "   ...",
    ]
