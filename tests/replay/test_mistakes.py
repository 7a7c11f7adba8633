"""Bodies with mistakes in them must fail clearly, or not matter; they never corrupt a run."""

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import timedelta
from typing import Any

import pytest
from msgspec import Raw

from durable_worker import StepFailedError, Worker, WorkflowContext
from durable_worker.protocol.commands import DecisionStatus, WorkflowDecision
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.tasks import HistoryEvent, HistoryKind
from durable_worker.replay import loop
from durable_worker.replay.operations import PARK
from tests.replay.model import ModelOperator, full_turn, new_replay, take_turn

Body = Callable[[WorkflowContext], Coroutine[Any, Any, Any]]


def serving(body: Body) -> Worker:
    worker = Worker()
    worker.workflow("flow")(body)
    return worker


def call(seq: int, name: str, output: str = "1") -> HistoryEvent:
    return HistoryEvent(seq=seq, kind=HistoryKind.CALL, name=name, output=Raw(output.encode()))


def decide(body: Body, *history: HistoryEvent) -> WorkflowDecision:
    operator = ModelOperator(history={event.seq: event for event in history})
    return full_turn(serving(body), operator.task())


def failure_of(decision: WorkflowDecision) -> tuple[str | None, str]:
    assert decision.status is DecisionStatus.FAILED
    assert decision.error is not None
    assert decision.error.retryable is False
    return decision.error.code, decision.error.message


async def forgets_await(ctx: WorkflowContext) -> None:
    ctx.step("charge")  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]


async def waits_for_nothing(ctx: WorkflowContext) -> None:
    await asyncio.get_running_loop().create_future()


async def raises(ctx: WorkflowContext) -> None:
    raise ImportError("no module named 'shop'")


@pytest.mark.parametrize(
    ("body", "history", "is_parked"),
    [
        (forgets_await, (), True),
        (waits_for_nothing, (), True),
        (forgets_await, (call(0, "refund"),), True),
        (raises, (), None),
    ],
)
def test_a_turn_that_the_code_has_failed_says_so_where_the_operator_keeps_the_run(
    body: Body, history: tuple[HistoryEvent, ...], is_parked: bool | None
) -> None:
    events = {event.seq: event for event in history}
    for capabilities, expected in ((None, None), ([PARK], is_parked)):
        operator = ModelOperator(history=dict(events), capabilities=capabilities)
        decision = full_turn(serving(body), operator.task())
        assert (decision.status, decision.park) == (DecisionStatus.FAILED, expected)
    operator = ModelOperator(history=dict(events), capabilities=[PARK], is_cancelled=True)
    assert full_turn(serving(body), operator.task()).park is None


async def charge_then_ship(ctx: WorkflowContext) -> Any:
    await ctx.step("charge")
    return await ctx.step("ship")


def test_another_name_than_history_holds_is_a_mismatch_that_names_both_sides() -> None:
    code, message = failure_of(decide(charge_then_ship, call(0, "refund")))
    line = charge_then_ship.__code__.co_firstlineno + 1
    assert code == "nondeterminism"
    assert "at seq 0" in message
    assert "history holds step 'refund'" in message
    assert "the code asks for step 'charge'" in message
    assert f"{__file__}:{line}" in message


def test_another_kind_than_history_holds_is_a_mismatch() -> None:
    timer = HistoryEvent(seq=0, kind=HistoryKind.TIMER, name="sleep:0")
    _, message = failure_of(decide(charge_then_ship, timer))
    assert "history holds a timer, the code asks for step 'charge'" in message


def test_history_that_goes_on_after_the_end_of_the_body_is_a_mismatch() -> None:
    history = [call(0, "charge"), call(1, "ship"), call(2, "thank")]
    code, message = failure_of(decide(charge_then_ship, *history))
    assert code == "nondeterminism"
    assert "at seq 2: history holds step 'thank'" in message
    assert "the body has ended" in message


def test_history_that_goes_on_while_the_body_waits_for_something_else_is_a_mismatch() -> None:
    async def body(ctx: WorkflowContext) -> Any:
        return await ctx.wait_signal("go")

    code, message = failure_of(decide(body, call(1, "ship")))
    assert code == "nondeterminism"
    assert "a wait for signal 'go'" in message
    assert f"{__file__}:{body.__code__.co_firstlineno + 1}" in message


def test_a_gap_where_the_code_now_records_a_value_is_a_mismatch() -> None:
    async def body(ctx: WorkflowContext) -> Any:
        ctx.now()
        return await ctx.step("ship")

    _, message = failure_of(decide(body, call(1, "ship")))
    assert "history holds nothing, the code asks for recorded value 'now#0'" in message


def test_a_mismatch_is_not_hidden_by_a_body_that_swallows_everything() -> None:
    async def body(ctx: WorkflowContext) -> str:
        try:
            await ctx.step("charge")
        except BaseException:
            return "all is well"
        return "done"

    code, _ = failure_of(decide(body, call(0, "refund")))
    assert code == "nondeterminism"


def test_swallowing_exceptions_around_an_operation_does_not_swallow_the_suspension() -> None:
    async def body(ctx: WorkflowContext) -> str:
        try:
            return str(await ctx.step("charge"))
        except Exception:
            return "swallowed"

    first = decide(body)
    assert (first.status, len(first.commands)) == (DecisionStatus.CONTINUE, 1)
    assert bytes(decide(body, call(0, "charge", '"ok"')).output) == b'"ok"'


def test_an_operation_that_is_never_awaited_fails_the_run_and_names_the_line() -> None:
    async def body(ctx: WorkflowContext) -> str:
        ctx.step("charge")
        return "paid"

    code, message = failure_of(decide(body))
    assert code == "never-awaited"
    assert f"ctx.step('charge', ...) was called at {__file__}:" in message


def test_an_operation_may_be_awaited_later_than_called() -> None:
    async def body(ctx: WorkflowContext) -> Any:
        later = ctx.step("charge")
        await ctx.step("ship")
        return await later

    assert decide(body).status is DecisionStatus.CONTINUE
    final = decide(body, call(0, "ship"), call(1, "charge", "5"))
    assert bytes(final.output) == b"5"


def test_a_body_that_waits_for_what_cannot_happen_fails_as_stuck() -> None:
    async def body(ctx: WorkflowContext) -> None:
        await asyncio.Event().wait()

    assert failure_of(decide(body))[0] == "stuck"


def test_a_body_that_spins_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "MAX_CALLBACKS_WITHOUT_IDLE", 1_000)

    async def body(ctx: WorkflowContext) -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0)

    assert failure_of(decide(body))[0] == "stuck"


@pytest.mark.parametrize(
    "forbidden",
    [
        lambda: asyncio.to_thread(print, "x"),
        lambda: asyncio.open_connection("127.0.0.1", 1),
        lambda: asyncio.create_subprocess_exec("true"),
    ],
)
def test_what_cannot_be_replayed_is_refused_with_what_to_do_instead(
    forbidden: Callable[[], Coroutine[Any, Any, Any]],
) -> None:
    async def body(ctx: WorkflowContext) -> None:
        await forbidden()

    code, message = failure_of(decide(body))
    assert code == "unsupported-in-workflow"
    assert "inside a workflow body" in message


def test_sys_exit_in_a_body_fails_the_run_and_not_the_worker() -> None:
    async def body(ctx: WorkflowContext) -> None:
        sys.exit(3)

    assert failure_of(decide(body))[0] == "SystemExit"


def test_an_exception_whose_text_cannot_be_made_still_fails_the_run() -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    async def body(ctx: WorkflowContext) -> None:
        raise Broken

    code, message = failure_of(decide(body))
    assert (code, "Broken" in message) == ("Broken", True)


def test_a_suspended_body_unwinds_without_effects_when_it_is_dropped() -> None:
    unwound: list[str] = []

    async def background(ctx: WorkflowContext) -> None:
        try:
            await ctx.step("slow")
        finally:
            await asyncio.sleep(5)
            unwound.append("never reached")

    async def body(ctx: WorkflowContext) -> None:
        task = asyncio.create_task(background(ctx))
        try:
            await ctx.step("charge")
        finally:
            unwound.append("outer")
            await ctx.step("refund")
            unwound.append("never reached")
        await task

    worker = serving(body)
    task = ModelOperator().task()
    replay = new_replay(worker, task)
    decision = take_turn(replay, task, now_ms=0)
    commands = [command.seq for command in decision.commands]
    replay.dispose()
    replay.dispose()
    assert commands == [0, 1]
    assert unwound == ["outer"]


def test_tasks_that_the_body_leaves_running_do_not_keep_it_from_ending() -> None:
    async def body(ctx: WorkflowContext) -> str:
        task = asyncio.create_task(ctx.step("slow"))
        await ctx.step("charge")
        return "done" if not task.done() else "too early"

    operator = ModelOperator()
    worker = serving(body)
    operator.apply(full_turn(worker, operator.task()))
    charge = next(seq for seq, c in operator.pending.items() if getattr(c, "name", "") == "charge")
    operator.resolve(charge)
    assert bytes(full_turn(worker, operator.task()).output) == b'"done"'


def test_a_turn_inside_a_running_loop_leaves_that_loop_and_its_task_as_they_were() -> None:
    async def body(ctx: WorkflowContext) -> str:
        return await ctx.step("charge", returns=str)

    async def host() -> tuple[bool, bool]:
        before = asyncio.get_running_loop(), asyncio.current_task()
        decide(body)
        await asyncio.sleep(0)
        after = asyncio.get_running_loop(), asyncio.current_task()
        return before[0] is after[0], before[1] is after[1]

    assert asyncio.run(host()) == (True, True)


def test_an_operation_that_is_cancelled_before_it_begins_is_no_mistake() -> None:
    async def body(ctx: WorkflowContext) -> str:
        task = asyncio.create_task(ctx.step("charge"))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        try:
            await asyncio.wait_for(ctx.step("charge"), 0)
        except TimeoutError:
            return "late"
        return "in time"

    assert bytes(decide(body).output) == b'"late"'


def test_a_callback_that_raises_does_not_reach_the_worker() -> None:
    async def body(ctx: WorkflowContext) -> str:
        task = asyncio.create_task(ctx.step("charge"))
        task.add_done_callback(lambda done: done.result())
        loop = asyncio.get_running_loop()
        loop.call_soon(lambda: {}["nothing"])
        await asyncio.sleep(0)
        return "ok"

    assert bytes(decide(body).output) == b'"ok"'


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_body_that_catches_everything_in_a_loop_can_still_be_dropped() -> None:
    async def body(ctx: WorkflowContext) -> None:
        while True:
            try:  # noqa: SIM105
                await ctx.wait_signal("go")
            except:  # noqa: E722 - the mistake that this is about
                pass

    assert decide(body).status is DecisionStatus.CONTINUE


def test_gathered_futures_in_a_set_are_met_in_the_same_order_on_every_replay() -> None:
    async def body(ctx: WorkflowContext) -> list[int]:
        pairs = [asyncio.gather(ctx.step("s", n), ctx.step("s", n)) for n in range(8)]
        done, _ = await asyncio.wait(pairs)
        return [(await each)[0] for each in done]

    history = [call(seq, "s", str(seq // 2)) for seq in range(16)]
    assert len({bytes(decide(body, *history).output) for _ in range(20)}) == 1


def test_the_garbage_collector_does_not_drive_a_body() -> None:
    async def body(ctx: WorkflowContext) -> str:
        async def numbers() -> AsyncIterator[int]:
            try:
                yield 1
                yield 2
            finally:
                await ctx.step("close")

        held: list[object] = []
        generator = numbers()
        held.extend([held, generator])
        async for _ in generator:
            break
        del held, generator
        await ctx.step("first")
        gc.collect()
        await ctx.step("second")
        return "done"

    asked = decide(body, call(0, "first"))
    assert [getattr(command, "name", "") for command in asked.commands] == ["second"]


@pytest.mark.parametrize(
    "ask",
    [
        lambda ctx: ctx.step(""),
        lambda ctx: ctx.step("x\udcff"),
        lambda ctx: ctx.wait_signal(42),
        lambda ctx: ctx.child(""),
        lambda ctx: ctx.step("x", partition=7),
        lambda ctx: ctx.sleep(float("inf")),
        lambda ctx: ctx.sleep(timedelta.max),
    ],
)
def test_what_cannot_go_on_the_wire_is_refused_in_the_body(ask: Callable[[Any], Any]) -> None:
    async def body(ctx: WorkflowContext) -> Any:
        return await ask(ctx)

    assert failure_of(decide(body))[0] in ("registration", "ValueError")


def test_a_kept_body_that_went_another_way_than_history_is_not_used() -> None:
    async def body(ctx: WorkflowContext) -> str:
        try:
            await ctx.step("charge")
        except StepFailedError:
            return str(await ctx.step("compensate"))
        return str(await ctx.step("ship"))

    worker = serving(body)
    failed = HistoryEvent(
        seq=0, kind=HistoryKind.CALL, name="charge", error=Failure(message="no", code="No")
    )
    first = ModelOperator(history={0: failed}).task()
    replay = new_replay(worker, first)
    take_turn(replay, first, now_ms=0)
    assert replay.can_continue(ModelOperator(history={0: failed}).task())
    assert not replay.can_continue(ModelOperator(history={0: call(0, "charge")}).task())
    replay.dispose()


def test_a_kept_body_that_knew_more_than_the_answer_that_counted_is_not_used() -> None:
    async def body(ctx: WorkflowContext) -> str:
        try:
            await ctx.wait_signal("go", timeout=timedelta(seconds=1))
        except TimeoutError:
            return str(await ctx.step("late"))
        return str(await ctx.step("ship"))

    worker = serving(body)
    operator = ModelOperator(capabilities=["durable-timers"])
    first = operator.task()
    replay = new_replay(worker, first)
    operator.apply(take_turn(replay, first, now_ms=0))
    operator.resolve(0, "now")
    knows_less = full_turn(worker, operator.task())  # records what was delivered, then ships
    operator.resolve(1)
    take_turn(replay, operator.task(), now_ms=0)  # ships at the seq of that record
    operator.apply(knows_less)
    operator.resolve(3, "parcel")
    assert not replay.can_continue(operator.task())
    replay.dispose()
    assert full_turn(worker, operator.task()).status is DecisionStatus.COMPLETED
