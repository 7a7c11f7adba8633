"""What interceptors may change inside a run: what is asked for, and what comes of it."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from msgspec import Raw

from durable_worker import (
    FatalError,
    Retry,
    StepFailedError,
    Undo,
    Worker,
    WorkflowContext,
)
from durable_worker.interceptors import (
    BodyExecution,
    Interceptor,
    Operation,
    Proceed,
    SleepOperation,
    StepOperation,
    WaitOperation,
)
from durable_worker.protocol.commands import (
    RecordStep,
    ScheduleStep,
    StartChild,
    StartTimer,
    WaitSignal,
)
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.names import event_subject
from durable_worker.protocol.tasks import HistoryEvent, HistoryKind
from durable_worker.replay.operations import CALL_RETRY
from tests.replay.intercepting import (
    Around,
    AroundImmediate,
    Next,
    called,
    decide,
    history,
    line_of,
    pass_on,
    read,
)
from tests.replay.model import ModelOperator, full_turn, turn


def test_a_step_goes_out_with_the_options_that_an_interceptor_gave_it() -> None:
    async def change(call: Operation, proceed: Next) -> Any:
        assert isinstance(call, StepOperation)
        changed = call.replace(name="pay", input=[call.input], retries=4, partition="eu")
        return await proceed(changed)

    async def body(ctx: WorkflowContext) -> None:
        await ctx.step("charge", 1)

    operator = ModelOperator(capabilities=[CALL_RETRY])
    (command,) = decide(body, Around(change), operator=operator).commands
    assert isinstance(command, ScheduleStep)
    assert (command.name, command.group, read(command.input)) == ("pay", "eu", [1])
    assert command.retry == Retry(attempts=5).options()


def test_a_timeout_can_be_given_to_every_wait() -> None:
    async def limit(call: Operation, proceed: Next) -> Any:
        if isinstance(call, (StepOperation, WaitOperation)) and call.timeout is None:
            call = call.replace(timeout=timedelta(seconds=5))
        return await proceed(call)

    async def body(ctx: WorkflowContext) -> None:
        await asyncio.gather(
            ctx.step("charge"), ctx.wait_signal("go"), ctx.webhook().wait(), ctx.task("t")
        )

    commands = decide(body, Around(limit)).commands
    assert [c.ms for c in commands if isinstance(c, StartTimer)] == [5_000] * 4


def test_signals_events_children_and_sleeps_can_be_changed() -> None:
    async def change(call: Operation, proceed: Next) -> Any:
        match call:
            case SleepOperation(seconds=seconds):
                call = call.replace(seconds=seconds * 2)
            case Operation(method="wait_event", input=match):
                call = call.replace(input={**match, "tenant": "acme"})
            case _:
                call = call.replace(name=f"acme-{call.name}")
        return await proceed(call)

    async def body(ctx: WorkflowContext) -> None:
        await asyncio.gather(
            ctx.sleep(1),
            ctx.wait_signal("go"),
            ctx.wait_update("up"),
            ctx.wait_event("paid", match={"id": 1}),
            ctx.child("ship"),
        )

    timer, *waits, child = decide(body, Around(change)).commands[:5]
    assert isinstance(timer, StartTimer)
    assert timer.ms == 2_000
    subject = event_subject("paid", b'{"id":1,"tenant":"acme"}')
    signals = [each.signal for each in waits if isinstance(each, WaitSignal)]
    assert signals == ["acme-go", "update:run-1:acme-up", f"{subject}:run-1#3"]
    assert isinstance(child, StartChild)
    assert child.workflow == "acme-ship"


def test_what_takes_effect_at_once_can_be_changed_too() -> None:
    def change(call: Operation, proceed: Callable[[Operation], Any]) -> Any:
        match call.method:
            case "set_event":
                return proceed(call.replace(name="public", input=[call.input]))
            case "start_child":
                return proceed(call.replace(input="changed"))
            case _:
                return proceed(call)

    async def body(ctx: WorkflowContext) -> str:
        ctx.set_event("state", 1)
        return await ctx.start_child("ship", "as asked")

    published, child = decide(body, AroundImmediate(change)).commands
    assert isinstance(published, RecordStep)
    assert isinstance(child, StartChild)
    assert (published.name, read(published.output)) == ("event:public", [1])
    assert read(child.input) == "changed"


def test_an_answer_without_proceeding_takes_no_seq() -> None:
    async def cached(call: Operation, proceed: Next) -> Any:
        return "known" if call.name == "look-up" else await proceed(call)

    async def body(ctx: WorkflowContext) -> None:
        await ctx.step("use", await ctx.step("look-up"))

    (command,) = decide(body, Around(cached)).commands
    assert isinstance(command, ScheduleStep)
    assert (command.seq, command.name, read(command.input)) == (0, "use", "known")


def test_to_proceed_again_is_another_operation() -> None:
    async def again(call: Operation, proceed: Next) -> Any:
        try:
            return await proceed(call)
        except StepFailedError:
            await call.context.sleep(60)
            return await proceed(call)

    async def body(ctx: WorkflowContext) -> Any:
        return await ctx.step("charge")

    failed = HistoryEvent(seq=0, kind=HistoryKind.CALL, name="charge", error=Failure(message="no"))
    slept = HistoryEvent(seq=1, kind=HistoryKind.TIMER, name="sleep:1")
    (command,) = decide(body, Around(again), operator=history(failed, slept)).commands
    assert (command.seq, type(command)) == (2, ScheduleStep)


def test_results_and_errors_can_be_replaced() -> None:
    async def change(call: Operation, proceed: Next) -> Any:
        try:
            return -(await proceed(call))
        except StepFailedError as error:
            raise FatalError("translated") from error

    async def body(ctx: WorkflowContext) -> str:
        value = await ctx.step("count", returns=int)
        try:
            await ctx.step("charge")
        except FatalError as error:
            return f"{value} {error}"
        return ""

    no = HistoryEvent(seq=1, kind=HistoryKind.CALL, name="charge", error=Failure(message="no"))
    decision = decide(body, Around(change), operator=history(called(0, "count", "5"), no))
    assert read(decision.output) == "-5 translated"


def test_the_wait_for_a_handle_can_be_answered_and_limited() -> None:
    async def change(call: Operation, proceed: Next) -> Any:
        if call.method == "start_child.result":
            assert (call.name, await proceed(call)) == ("ship", "NL-1")
            return "replaced"
        return await proceed(call)

    async def body(ctx: WorkflowContext) -> str:
        return await ctx.start_child("ship", returns=str)

    event = HistoryEvent(seq=0, kind=HistoryKind.CHILD, output=Raw(b'"NL-1"'))
    decision = decide(body, Around(change), operator=history(event))
    assert read(decision.output) == "replaced"


def test_a_body_can_be_given_another_input_and_its_output_replaced() -> None:
    class Double(Interceptor):
        async def body(self, call: BodyExecution, proceed: Proceed[BodyExecution, Any], /) -> Any:
            assert call.context.run_id == "run-1"
            return [await proceed(call.replace(input=call.input * 2))]

    async def body(ctx: WorkflowContext, number: int) -> int:
        return number

    worker = Worker(interceptors=[Double()])
    worker.workflow("flow")(body)
    decision = full_turn(worker, ModelOperator(input=21).task())
    assert read(decision.output) == [42]


def test_an_error_around_the_body_fails_the_run_and_undoes_what_was_done() -> None:
    class Refusing(Interceptor):
        async def body(self, call: BodyExecution, proceed: Proceed[BodyExecution, Any], /) -> Any:
            await proceed(call)
            raise FatalError("refused")

    async def body(ctx: WorkflowContext) -> None:
        await ctx.step("charge", compensate="refund")

    operator = history(called(0, "charge"))
    (command,) = decide(body, Refusing(), operator=operator).commands
    assert isinstance(command, ScheduleStep)
    assert command.name == "refund"
    operator.resolve(1)
    decision = decide(body, Refusing(), operator=operator)
    assert decision.error is not None
    assert decision.error.message == "refused"


def test_a_compensation_shows_what_it_undoes_and_can_be_given_more_retries() -> None:
    seen: list[Operation] = []

    async def persist(call: Operation, proceed: Next) -> Any:
        if isinstance(call, StepOperation) and call.method == "compensation":
            seen.append(call)
            call = call.replace(retries=9)
        return await proceed(call)

    async def body(ctx: WorkflowContext) -> None:
        async with ctx.saga() as saga:
            await saga.step("charge", {"id": 1}, compensate="refund")
            raise FatalError("no")

    operator = history(called(0, "charge", '"c-1"'))
    operator.capabilities = [CALL_RETRY]
    (command,) = decide(body, Around(persist), operator=operator).commands
    assert isinstance(command, ScheduleStep)
    assert command.retry == Retry(attempts=10).options()
    assert bytes(command.input) == b'{"input":{"id":1},"output":"c-1"}'
    assert seen[0].input == {"input": {"id": 1}, "output": "c-1"}
    assert seen[0].location == line_of(body, 2)
    assert str(seen[0]) == "the compensation 'refund'"


def test_what_a_compensation_is_given_keeps_the_bytes_of_the_output() -> None:
    async def body(ctx: WorkflowContext) -> None:
        await ctx.step("charge", compensate="refund")
        raise FatalError("no")

    (command,) = decide(
        body, Around(pass_on), operator=history(called(0, "charge", '{"amount": 1.50}'))
    ).commands
    assert isinstance(command, ScheduleStep)
    assert bytes(command.input) == b'{"input":null,"output":{"amount": 1.50}}'


def test_an_undoing_step_of_this_worker_is_given_what_the_interceptor_made_of_the_input() -> None:
    async def change(call: Operation, proceed: Next) -> Any:
        return await proceed(call.replace(input=2) if call.method == "step" else call)

    async def body(ctx: WorkflowContext) -> None:
        await ctx.step("charge", 1, compensate=refund)
        raise FatalError("no")

    worker = Worker(interceptors=[Around(change)])
    worker.step("refund")(refund)
    (command,) = turn(body, history(called(0, "charge", "3")), worker=worker).commands
    assert isinstance(command, ScheduleStep)
    assert read(command.input) == {"input": 2, "output": 3}


async def refund(undo: Undo[int, int]) -> None: ...


def test_a_handler_can_be_given_the_signals_of_another_name() -> None:
    def rename(call: Operation, proceed: Callable[[Operation], Any]) -> Any:
        return proceed(call.replace(name=f"acme-{call.name}"))

    async def count(call: Operation, proceed: Next) -> Any:
        assert not isinstance(call, WaitOperation)
        assert call.name == "acme-told"
        return [await proceed(call)]

    class Both(Around, AroundImmediate):
        def __init__(self) -> None:
            self.hook = count

        def immediate(self, call: Operation, proceed: Callable[[Operation], Any], /) -> Any:
            return rename(call, proceed)

    told: list[object] = []

    async def body(ctx: WorkflowContext) -> None:
        ctx.on_signal("told", told.append)
        await asyncio.Event().wait()

    operator = ModelOperator()
    (command,) = decide(body, Both(), operator=operator).commands
    assert isinstance(command, WaitSignal)
    assert command.signal == "acme-told"
    operator.resolve(0, "news")
    decide(body, Both(), operator=operator)
    assert told == [["news"]]
