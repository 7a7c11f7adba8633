"""What each operation asks for, what it answers, and how it fails."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec
import pytest
from msgspec import UNSET, Raw, json

from durable_worker import (
    ChildFailedError,
    Retry,
    StepContext,
    StepFailedError,
    Worker,
    WorkflowContext,
)
from durable_worker.protocol.commands import (
    AnyCommand,
    DecisionStatus,
    RecordStep,
    RetryOptions,
    ScheduleStep,
    StartChild,
    StartTimer,
    WaitSignal,
)
from durable_worker.protocol.failure import Failure
from durable_worker.replay.operations import CALL_RETRY, DURABLE_TIMERS
from tests.replay.model import ModelOperator, finish, full_turn, run_local


class Color(Enum):
    RED = "red"


class Order(msgspec.Struct):
    id: str
    total: Decimal
    at: datetime
    token: UUID
    color: Color = Color.RED


def commands_of(worker: Worker, operator: ModelOperator) -> list[AnyCommand]:
    return full_turn(worker, operator.task(), now_ms=operator.now_ms).commands


def test_a_step_by_name_is_a_call_with_the_encoded_input() -> None:
    worker = Worker()

    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext) -> Any:
        return await ctx.step("stock:reserve", {"sku": 1}, partition="eu")

    assert commands_of(worker, ModelOperator()) == [
        ScheduleStep(seq=0, name="stock:reserve", group="eu", input=Raw(b'{"sku":1}'))
    ]


def test_values_keep_their_types_through_steps_and_workflow_input() -> None:
    worker = Worker()
    order = Order("o-1", Decimal("12.50"), datetime(2026, 1, 2, tzinfo=UTC), UUID(int=7))
    seen: list[Order] = []

    @worker.step("charge")
    async def charge(order: Order, ctx: StepContext) -> Order:
        return order

    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext, order: Order) -> Order:
        charged = await ctx.step(charge, order)
        seen.extend([order, charged])
        return charged

    final = finish(worker, ModelOperator(input=order), {"charge": order})
    assert seen[-2:] == [order, order]
    assert bytes(final.output) == json.encode(order)


def test_an_input_that_does_not_fit_fails_the_run_and_names_path_and_type() -> None:
    worker = Worker()

    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext, order: Order) -> None: ...

    decision = full_turn(worker, ModelOperator(input={"id": 5}).task())
    assert decision.status is DecisionStatus.FAILED
    assert decision.error is not None
    assert decision.error.retryable is False
    assert decision.error.code == "payload"
    assert "Expected `str`, got `int` - at `$.id`" in decision.error.message


def test_an_output_without_json_form_fails_the_run() -> None:
    worker = Worker()

    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext) -> Any:
        return {"x": [1.0, float("nan")]}

    decision = full_turn(worker, ModelOperator().task())
    assert decision.error is not None
    assert "`$.x[1]`" in decision.error.message


def test_gathered_steps_are_asked_for_in_one_turn_in_order() -> None:
    worker = Worker()

    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext) -> list[Any]:
        return await asyncio.gather(*(ctx.step("s", i) for i in range(50)))

    operator = ModelOperator()
    commands = commands_of(worker, operator)
    assert [(c.seq, int(bytes(c.input))) for c in commands if isinstance(c, ScheduleStep)] == [
        (i, i) for i in range(50)
    ]


def test_a_plain_gather_and_sequential_code_never_need_a_marker() -> None:
    worker = Worker()

    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext) -> None:
        await asyncio.gather(*(ctx.step("s", i) for i in range(3)))
        await ctx.step("t")

    operator = ModelOperator()
    for answers in ([0], [2], [1], [3]):
        operator.apply(full_turn(worker, operator.task()))
        for seq in answers:
            operator.resolve(seq)
    operator.apply(full_turn(worker, operator.task()))
    assert operator.final is not None
    assert sorted(operator.history) == [0, 1, 2, 3]


@pytest.mark.parametrize("sleep", ["ctx", "asyncio"])
def test_sleeping_is_a_durable_timer(sleep: str) -> None:
    worker = Worker()

    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext) -> str:
        await (ctx.sleep(timedelta(minutes=1)) if sleep == "ctx" else asyncio.sleep(60))
        return "awake"

    operator = ModelOperator()
    assert commands_of(worker, operator) == [StartTimer(seq=0, ms=60_000)]
    assert bytes(finish(worker, operator).output) == b'"awake"'


def test_a_signal_wait_that_times_out_raises_and_a_late_signal_reaches_the_next_wait() -> None:
    worker = Worker()

    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext) -> list[Any]:
        try:
            await ctx.wait_signal("approve:1", timeout=timedelta(days=3), returns=str)
        except TimeoutError:
            await ctx.step("remind")
        return [await ctx.wait_signal("approve:1", returns=str)]

    operator = ModelOperator()
    first = full_turn(worker, operator.task(), now_ms=operator.now_ms)
    assert WaitSignal(seq=0, signal="approve:1") in first.commands
    operator.apply(first)
    operator.resolve(1)
    operator.apply(full_turn(worker, operator.task(), now_ms=operator.now_ms))
    remind = next(c.seq for c in operator.pending.values() if isinstance(c, ScheduleStep))
    operator.resolve(0, "yes")  # too late for the first wait
    operator.resolve(remind)
    operator.apply(full_turn(worker, operator.task(), now_ms=operator.now_ms))
    assert operator.final is not None
    assert bytes(operator.final.output) == b'["yes"]'


def test_a_child_by_function_has_the_childs_types_and_its_failure_can_be_caught() -> None:
    worker = Worker()

    @worker.workflow("shipping")
    async def shipping(ctx: WorkflowContext, order: dict[str, str]) -> int:
        return 1

    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext) -> str:
        try:
            return str(await ctx.child(shipping, {"order": "o-1"}))
        except ChildFailedError as error:
            return f"{error.name} {error.code} {error.details}"

    operator = ModelOperator()
    decision = full_turn(worker, operator.task())
    assert [type(c) for c in decision.commands] == [StartChild]
    operator.apply(decision)
    operator.resolve(0, error=Failure(message="no", code="Lost", details=Raw(b"[1]")))
    operator.apply(full_turn(worker, operator.task()))
    assert operator.final is not None
    assert bytes(operator.final.output) == b'"shipping Lost [1]"'


def test_now_uuid_random_and_side_effects_are_the_same_on_every_replay() -> None:
    worker = Worker()
    calls: list[int] = []

    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext) -> list[str]:
        def produce() -> int:
            calls.append(1)
            return len(calls)

        before = [str(ctx.now()), str(ctx.uuid()), str(ctx.random.random())]
        before.append(str(ctx.side_effect(produce)))
        await ctx.step("pause")
        return [*before, str(ctx.uuid())]

    operator = ModelOperator()
    first = full_turn(worker, operator.task(), now_ms=5_000)
    assert [c.name for c in first.commands if isinstance(c, RecordStep)] == ["now#0", "sideEffect"]
    operator.apply(first)
    operator.resolve(2)
    outputs = {bytes(full_turn(worker, operator.task(), now_ms=9_000).output) for _ in range(3)}
    assert len(outputs) == 1
    assert calls == [1]
    assert json.decode(outputs.pop())[0] == "1970-01-01 00:00:05+00:00"


def test_local_steps_run_in_the_turn_and_are_recorded() -> None:
    worker = Worker()

    @worker.step("double")
    def double(n: int) -> str: ...

    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext) -> list[str]:
        return list(await asyncio.gather(ctx.local_step(double, 1), ctx.local_step(double, 2)))

    decision = full_turn(worker, ModelOperator().task())
    assert decision.status is DecisionStatus.COMPLETED
    assert decision.commands == [run_local("double", 0, 1), run_local("double", 1, 2)]
    assert bytes(decision.output) == b'["double@0","double@1"]'


def failing_twice(worker: Worker) -> None:
    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext) -> Any:
        retry = Retry(attempts=3, initial=timedelta(seconds=2), jitter=0, non_retryable=("Fatal",))
        try:
            return await ctx.step("pay", 1, retries=retry)
        except StepFailedError as error:
            return f"{error.seq} {error.code}"


def test_on_a_v1_operator_a_retry_is_a_timer_and_a_new_call() -> None:
    worker = Worker()
    failing_twice(worker)
    operator = ModelOperator()
    kinds: list[list[str]] = []
    for _ in range(5):
        decision = full_turn(worker, operator.task(), now_ms=operator.now_ms)
        kinds.append([f"{type(c).__name__}@{c.seq}" for c in decision.commands])
        operator.apply(decision)
        seq = next(iter(operator.pending))
        call = isinstance(operator.pending[seq], ScheduleStep)
        if isinstance(decision.commands[-1], StartTimer):
            assert decision.commands[-1].ms == (2_000 if seq == 1 else 4_000)
        operator.resolve(seq, error=Failure(message="no", code="Busy") if call else None)
    assert kinds == [
        ["ScheduleStep@0"],
        ["StartTimer@1"],
        ["ScheduleStep@2"],
        ["StartTimer@3"],
        ["ScheduleStep@4"],
    ]
    last = full_turn(worker, operator.task(), now_ms=operator.now_ms)
    assert bytes(last.output) == b'"4 Busy"'


@pytest.mark.parametrize(
    "failure",
    [
        Failure(message="no", code="Busy", retryable=False),
        Failure(message="no", code="Fatal"),
    ],
)
def test_a_failure_that_rules_retries_out_ends_the_step_at_once(failure: Failure) -> None:
    worker = Worker()
    failing_twice(worker)
    operator = ModelOperator()
    operator.apply(full_turn(worker, operator.task()))
    operator.resolve(0, error=failure)
    assert full_turn(worker, operator.task()).status is DecisionStatus.COMPLETED


def test_an_operator_that_states_call_retry_gets_the_policy_and_does_it_itself() -> None:
    worker = Worker()
    failing_twice(worker)
    operator = ModelOperator(capabilities=[CALL_RETRY])
    decision = full_turn(worker, operator.task())
    assert isinstance(decision.commands[0], ScheduleStep)
    assert decision.commands[0].retry == RetryOptions(
        attempts=3, initial_ms=2_000, factor=2.0, max_ms=60_000, non_retryable=["Fatal"]
    )
    operator.apply(decision)
    operator.resolve(0, error=Failure(message="no", code="Busy"))
    assert bytes(full_turn(worker, operator.task()).output) == b'"0 Busy"'


def test_deadlines_are_not_recorded_for_an_operator_that_keeps_timers() -> None:
    worker = Worker()

    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext) -> None:
        await asyncio.gather(ctx.sleep(5), ctx.step("s"))

    stock = full_turn(worker, ModelOperator().task(), now_ms=1_000)
    ours = full_turn(worker, ModelOperator(capabilities=[DURABLE_TIMERS]).task(), now_ms=1_000)
    assert [c.name for c in stock.commands if isinstance(c, RecordStep)] == ["durable:deadlines"]
    assert not any(isinstance(c, RecordStep) for c in ours.commands)


def test_asyncio_primitives_work_inside_a_body() -> None:
    worker = Worker()

    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext) -> list[Any]:
        queue: asyncio.Queue[int] = asyncio.Queue()
        event, lock = asyncio.Event(), asyncio.Lock()

        async def produce() -> None:
            for number in range(3):
                async with lock:
                    await ctx.step("s", number)
                await queue.put(number)
            event.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(produce())
            await event.wait()
        try:
            await asyncio.wait_for(ctx.wait_signal("never"), 3)
        except TimeoutError:
            pass
        else:
            return ["no timeout"]
        return [queue.get_nowait() for _ in range(3)]

    operator = ModelOperator()
    for _ in range(10):
        operator.apply(full_turn(worker, operator.task(), now_ms=operator.now_ms))
        if operator.final is not None:
            break
        for seq, command in sorted(operator.pending.items()):
            if not isinstance(command, WaitSignal):
                operator.resolve(seq)
    assert operator.final is not None
    assert bytes(operator.final.output) == b"[0,1,2]"


def test_unset_payloads_are_null() -> None:
    worker = Worker()

    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext, value: None) -> None:
        return await ctx.step("s")

    decision = full_turn(worker, ModelOperator().task())
    assert isinstance(decision.commands[0], ScheduleStep)
    assert decision.commands[0].input is UNSET
