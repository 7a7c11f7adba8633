"""Bodies that end to go on with a new history."""

import asyncio
import random
from collections.abc import Awaitable
from typing import Any

import pytest
from msgspec import UNSET, Raw, json

from durable_worker import Undo, Worker, WorkflowContext
from durable_worker.errors import PayloadError, UnsupportedByOperatorError
from durable_worker.protocol.commands import (
    DecisionStatus,
    RecordStep,
    ScheduleStep,
    StartChild,
    StartTimer,
    WaitSignal,
)
from durable_worker.replay.operations import CONTINUE_AS_NEW, DURABLE_TIMERS, ORDERED_HISTORY
from tests.replay.model import ModelOperator, full_turn, new_replay, take_turn, turn

EVERYTHING = [CONTINUE_AS_NEW, DURABLE_TIMERS, ORDERED_HISTORY]


def an_operator(**changes: Any) -> ModelOperator:
    return ModelOperator(**{"capabilities": EVERYTHING, **changes})


def call(seq: int, name: str, value: bytes | None = None) -> ScheduleStep:
    payload = UNSET if value is None else Raw(value)
    return ScheduleStep(seq=seq, name=name, group="default", input=payload)


def counting(worker: Worker) -> None:
    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext, count: int) -> int:
        await ctx.step("tick", count)
        if count < 3:
            ctx.continue_as_new(count + 1)
        return count


def test_the_body_begins_anew_with_seqs_that_no_execution_before_has_used() -> None:
    worker, operator = Worker(), an_operator(input=1)
    counting(worker)
    for first in (0, 2, 4):
        count = first // 2 + 1
        decision = full_turn(worker, operator.task())
        assert decision.commands == [call(first, "tick", str(count).encode())]
        operator.apply(decision)
        operator.resolve(first)
        decision = full_turn(worker, operator.task())
        operator.apply(decision)
        if count < 3:
            assert decision.status is DecisionStatus.CONTINUED
            assert decision.input == Raw(str(count + 1).encode())
            assert sorted(operator.history) == [first + 1]
    assert (decision.status, decision.output) == (DecisionStatus.COMPLETED, Raw(b"3"))


@pytest.mark.parametrize("stated", [None, [ORDERED_HISTORY]])
def test_without_the_capability_it_is_refused_where_it_is_asked_for(
    stated: list[str] | None,
) -> None:
    async def body(ctx: WorkflowContext) -> str:
        with pytest.raises(UnsupportedByOperatorError) as refused:
            ctx.continue_as_new()
        return str(refused.value)

    decision = turn(body, ModelOperator(capabilities=stated))
    assert decision.status is DecisionStatus.COMPLETED
    assert b"does not state the capability 'continue-as-new'" in bytes(Raw(decision.output))


def test_an_input_without_json_form_is_refused_where_it_is_given() -> None:
    async def body(ctx: WorkflowContext) -> str:
        with pytest.raises(PayloadError, match="the next input of 'flow'"):
            ctx.continue_as_new(object())
        return "caught"

    assert turn(body, an_operator()).output == Raw(b'"caught"')


def test_no_except_clause_for_errors_swallows_it_and_finally_blocks_run() -> None:
    async def body(ctx: WorkflowContext) -> None:
        try:
            try:
                ctx.continue_as_new("next")
            except Exception:
                raise AssertionError("it is no error") from None
        finally:
            await ctx.step("clean")

    operator = an_operator()
    assert turn(body, operator).commands == [call(0, "clean")]
    operator.resolve(0)
    decision = turn(body, operator)
    assert (decision.status, decision.input) == (DecisionStatus.CONTINUED, Raw(b'"next"'))


async def _in_a_group(ctx: WorkflowContext, going_on: Awaitable[None]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(ctx.wait_signal("never"))
        group.create_task(going_on)


async def _in_nested_groups(ctx: WorkflowContext, going_on: Awaitable[None]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_in_a_group(ctx, going_on))
        group.create_task(ctx.wait_signal("never either"))


async def _in_a_gather(ctx: WorkflowContext, going_on: Awaitable[None]) -> None:
    await asyncio.gather(ctx.wait_signal("never"), going_on)


async def _in_the_background(ctx: WorkflowContext, going_on: Awaitable[None]) -> None:
    task = asyncio.ensure_future(going_on)
    await ctx.wait_signal("never")
    await task


async def _in_time(ctx: WorkflowContext, going_on: Awaitable[None]) -> None:
    async with asyncio.timeout(60):
        await going_on


@pytest.mark.parametrize(
    "way", [_in_a_group, _in_nested_groups, _in_a_gather, _in_the_background, _in_time]
)
def test_it_leaves_the_body_from_whichever_of_its_tasks(way: Any) -> None:
    async def body(ctx: WorkflowContext) -> None:
        async def going_on() -> None:
            await ctx.step("work")
            ctx.continue_as_new(7)

        await way(ctx, going_on())

    operator = an_operator()
    decision = turn(body, operator)
    work = next(each.seq for each in decision.commands if isinstance(each, ScheduleStep))
    operator.resolve(work)
    decision = turn(body, operator)
    assert (decision.status, decision.input) == (DecisionStatus.CONTINUED, Raw(b"7"))


def test_a_handler_of_signals_may_end_the_execution() -> None:
    async def body(ctx: WorkflowContext) -> None:
        ctx.on_signal("reload", ctx.continue_as_new)
        await ctx.wait_signal("never")

    operator = an_operator()
    seqs = {each.signal: each.seq for each in turn(body, operator).commands}  # type: ignore[union-attr]
    operator.resolve(seqs["reload"], {"new": True})
    decision = turn(body, operator)
    assert (decision.status, decision.input) == (DecisionStatus.CONTINUED, Raw(b'{"new":true}'))
    assert decision.unread is None


def test_an_error_beside_it_fails_the_body() -> None:
    async def body(ctx: WorkflowContext) -> None:
        async def failing() -> None:
            try:
                await ctx.wait_signal("never")
            finally:
                raise ValueError("on the way out")

        async with asyncio.TaskGroup() as group:
            group.create_task(failing())
            await ctx.step("work")
            ctx.continue_as_new()

    operator = an_operator()
    turn(body, operator)
    operator.resolve(1)
    assert turn(body, operator).status is DecisionStatus.FAILED


def test_nothing_is_compensated() -> None:
    worker = Worker()

    @worker.step("undo")
    async def undo(_: Undo[None, None]) -> None: ...

    async def body(ctx: WorkflowContext) -> None:
        await ctx.step("pay", compensate=undo)
        async with ctx.saga() as saga:
            await saga.step("ship", compensate=undo)
            ctx.continue_as_new()

    operator = an_operator()
    for seq in (0, 1):
        turn(body, operator, worker=worker)
        operator.resolve(seq)
    decision = turn(body, operator, worker=worker)
    assert (decision.status, decision.commands) == (DecisionStatus.CONTINUED, [])


def test_signals_that_nobody_has_taken_are_named() -> None:
    """Of a wait that was given up, of what was opened and never awaited, of a busy handler."""

    async def body(ctx: WorkflowContext) -> None:
        async def handle(_: Any) -> None:
            await ctx.step("slow")

        ctx.on_signal("handled", handle)
        ctx.task("opened")
        with pytest.raises(TimeoutError):
            await ctx.wait_signal("late", timeout=5)
        await ctx.wait_signal("taken")
        await ctx.step("work")
        ctx.continue_as_new()

    operator = an_operator()
    turn(body, operator)
    names = {
        each.signal: seq for seq, each in operator.pending.items() if isinstance(each, WaitSignal)
    }
    timer = next(seq for seq, each in operator.pending.items() if isinstance(each, StartTimer))
    operator.resolve(timer)
    turn(body, operator)
    taken = next(
        seq
        for seq, each in operator.pending.items()
        if isinstance(each, WaitSignal) and each.signal == "taken"
    )
    operator.resolve(taken, "T")
    operator.resolve(names["handled"], "H1")
    turn(body, operator)
    calls = {each.name: s for s, each in operator.pending.items() if isinstance(each, ScheduleStep)}
    operator.resolve(names["late"], "L")
    operator.resolve(names["task:run-1:opened"], {"ok": True, "value": "O"})
    operator.resolve(calls["work"])
    decision = turn(body, operator)
    assert decision.status is DecisionStatus.CONTINUED
    assert decision.unread == sorted([names["late"], names["task:run-1:opened"]])
    assert sorted(operator.returned) == [b'"L"', b'{"ok":true,"value":"O"}']


def test_children_that_were_promised_are_started_before() -> None:
    async def body(ctx: WorkflowContext) -> None:
        ctx.start_child("other", 1)
        ctx.continue_as_new()

    operator = an_operator()
    decision = turn(body, operator)
    assert decision.commands == [
        StartChild(seq=0, workflow="other", input=Raw(b"1")),
        StartTimer(seq=1, ms=0),
    ]
    operator.resolve(1)
    assert turn(body, operator).status is DecisionStatus.CONTINUED


def test_what_was_recorded_by_the_execution_does_not_bind_the_next_one() -> None:
    """Patches, random numbers and the sense of replaying begin anew."""
    seen: list[tuple[bool, bool, int]] = []

    async def body(ctx: WorkflowContext) -> None:
        seen.append((ctx.is_replaying, ctx.patched("new"), ctx.random.randrange(10**9)))
        await ctx.step("work")
        ctx.continue_as_new()

    operator = an_operator()
    for round_ in range(3):
        decision = turn(body, operator)
        (patch, work) = decision.commands
        assert isinstance(patch, RecordStep)
        assert (patch.name, patch.output) == ("patch:new", Raw(b"true"))
        assert seen[-1][:2] == (False, True), round_
        operator.resolve(work.seq)
        assert turn(body, operator).status is DecisionStatus.CONTINUED
    numbers = [each[2] for each in seen[::2]]
    assert len(set(numbers)) == 3
    assert numbers == [each[2] for each in seen[1::2]]


def test_a_worker_that_does_not_know_of_it_fails_instead_of_going_wrong() -> None:
    """To one that begins at seq 0 the history does not fit."""
    operator = an_operator()

    async def body(ctx: WorkflowContext) -> None:
        await ctx.step("work")
        ctx.continue_as_new()

    turn(body, operator)
    operator.resolve(0)
    turn(body, operator)
    operator.history = {
        seq: json.decode(
            json.encode(each).replace(b"durable:continued", b"durable:unknown"), type=type(each)
        )
        for seq, each in operator.history.items()
    }
    decision = turn(body, operator)
    assert decision.status is DecisionStatus.FAILED
    assert decision.error is not None
    assert decision.error.code == "nondeterminism"


def test_every_execution_decides_the_same_from_the_top_and_from_a_kept_body() -> None:
    worker = Worker()

    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext, round_: int) -> int:
        async def branch(name: str) -> Any:
            if name.startswith("signal"):
                return await ctx.wait_signal(name)
            return await ctx.step(name)

        tasks = [asyncio.ensure_future(branch(each)) for each in ("a", "signal-1", "b")]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await ctx.step("after")
        if round_ < 4:
            ctx.continue_as_new(round_ + 1)
        return round_

    for seed in range(60):
        chance = random.Random(seed)
        operator = an_operator(input=1)
        kept = None
        for _ in range(100):
            task = operator.task()
            full = full_turn(worker, task, now_ms=operator.now_ms)
            if kept is None or not kept.can_continue(task):
                kept = new_replay(worker, task)
            sticky = take_turn(kept, task, now_ms=operator.now_ms)
            assert json.encode(sticky) == json.encode(full)
            operator.apply(full)
            if full.status is not DecisionStatus.CONTINUE:
                kept.dispose()
                kept = None
            if operator.final is not None:
                break
            if operator.pending:
                operator.resolve(chance.choice(sorted(operator.pending)), "x")
        assert operator.final is not None, seed
        assert operator.final.output == Raw(b"4")
