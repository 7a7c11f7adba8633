"""What interceptors see inside a run, what they may change, and whose line an error names."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import msgspec
import pytest
from msgspec import Raw

from durable_worker import (
    FatalError,
    InterceptorError,
    Retry,
    StepFailedError,
    Undo,
    Worker,
    WorkflowContext,
)
from durable_worker.interceptors import (
    BodyExecution,
    Interceptor,
    Method,
    Operation,
    Proceed,
    SleepOperation,
    StepOperation,
    WaitOperation,
)
from durable_worker.protocol.commands import (
    DecisionStatus,
    RecordStep,
    ScheduleStep,
    StartChild,
    StartTimer,
    WaitSignal,
    WorkflowDecision,
)
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.names import event_subject
from durable_worker.protocol.tasks import HistoryEvent, HistoryKind
from durable_worker.replay.operations import CALL_RETRY
from tests.replay.model import Body, ModelOperator, finish, full_turn, new_replay, take_turn, turn

Next = Proceed[Operation, Any]


class Around(Interceptor):
    """Calls a function in the place of a hook."""

    def __init__(self, hook: Callable[[Operation, Next], Any]) -> None:
        self.hook = hook

    async def operation(self, call: Operation, proceed: Next, /) -> Any:
        return await self.hook(call, proceed)


class AroundImmediate(Interceptor):
    def __init__(self, hook: Callable[[Operation, Callable[[Operation], Any]], Any]) -> None:
        self.hook = hook

    def immediate(self, call: Operation, proceed: Callable[[Operation], Any], /) -> Any:
        return self.hook(call, proceed)


def decide(
    body: Body,
    *interceptors: Interceptor,
    operator: ModelOperator | None = None,
) -> WorkflowDecision:
    """One turn of `body` from the top, applied."""
    worker = Worker(interceptors=interceptors)
    return turn(body, operator or ModelOperator(), worker=worker)


def called(seq: int, name: str, output: str = "1") -> HistoryEvent:
    return HistoryEvent(seq=seq, kind=HistoryKind.CALL, name=name, output=Raw(output.encode()))


def history(*events: HistoryEvent) -> ModelOperator:
    return ModelOperator(history={event.seq: event for event in events})


def line_of(body: Callable[..., Any], offset: int) -> str:
    return f"{__file__}:{body.__code__.co_firstlineno + offset}"


def read(payload: Any) -> Any:
    return msgspec.json.decode(payload)


# What they see


async def everything(ctx: WorkflowContext) -> None:
    async def handle(payload: object) -> None: ...

    ctx.on_signal("told", handle)
    ctx.now()
    ctx.uuid()
    ctx.random.random()
    ctx.side_effect(lambda: 1)
    ctx.set_event("state", "begun")
    ctx.patched("p")
    child = ctx.start_child("child")
    hook, task = ctx.webhook(), ctx.task("task")
    await asyncio.gather(child, hook, task)
    await ctx.step("step")
    await ctx.local_step(short)
    await ctx.child("child")
    await ctx.sleep(1)
    await ctx.wait_signal("signal")
    await ctx.wait_update("update")
    await ctx.wait_event("event")
    await ctx.breakpoint()
    async with ctx.saga() as saga:
        await saga.step("do", compensate="undo")
        raise StepFailedError("made-up", "no", seq=0)


async def short() -> str: ...


def test_every_operation_of_the_context_passes_through_them() -> None:
    seen: list[Method] = []

    class Seeing(Interceptor):
        async def operation(self, call: Operation, proceed: Next, /) -> Any:
            seen.append(call.method)
            return await proceed(call)

        def immediate(self, call: Operation, proceed: Callable[[Operation], Any], /) -> Any:
            seen.append(call.method)
            return proceed(call)

    worker = Worker(interceptors=[Seeing()])
    worker.workflow("flow")(everything)
    worker.step("local")(short)
    decision = finish(worker, ModelOperator(), {"task:run-1:task": {"ok": True}})
    assert decision.error is not None
    assert "made-up" in decision.error.message
    assert set(seen) == set(get_args(Method))


def test_an_operation_says_what_it_is_about_and_who_asks() -> None:
    seen: list[Operation] = []

    async def see(call: Operation, proceed: Next) -> Any:
        seen.append(call)
        return await proceed(call)

    async def body(ctx: WorkflowContext) -> None:
        await ctx.step("charge", {"id": 1}, retries=2, timeout=timedelta(seconds=9))

    decide(body, Around(see))
    (call,) = seen
    assert isinstance(call, StepOperation)
    assert (call.method, call.name, call.input) == ("step", "charge", {"id": 1})
    assert (call.retries, call.timeout, call.partition) == (Retry(attempts=3), 9, "default")
    assert (call.run_id, call.workflow, call.version) == ("run-1", "flow", "1")
    assert call.location == line_of(body, 1)
    assert str(call) == "ctx.step('charge')"


def test_the_first_interceptor_is_the_outermost() -> None:
    seen: list[str] = []

    class Named(Interceptor):
        def __init__(self, name: str) -> None:
            self.name = name

        async def body(self, call: BodyExecution, proceed: Proceed[BodyExecution, Any], /) -> Any:
            seen.append(f"{self.name} body")
            return await proceed(call)

        async def operation(self, call: Operation, proceed: Next, /) -> Any:
            seen.append(f"{self.name} operation")
            return await proceed(call)

        def immediate(self, call: Operation, proceed: Callable[[Operation], Any], /) -> Any:
            seen.append(f"{self.name} immediate")
            return proceed(call)

    async def body(ctx: WorkflowContext) -> None:
        ctx.uuid()
        await ctx.sleep(1)

    decide(body, Named("a"), Named("b"))
    kinds = ("body", "immediate", "operation")
    assert seen == [f"{name} {kind}" for kind in kinds for name in ("a", "b")]


def test_what_is_not_overridden_is_not_in_the_way() -> None:
    kinds: list[type] = []

    class Steps(Interceptor):
        async def step(self, call: Any, proceed: Any, /) -> Any: ...

    async def body(ctx: WorkflowContext) -> None:
        kinds.append(type(ctx))

    decide(body, Steps())
    assert kinds == [WorkflowContext]


# What they change


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


def test_what_an_interceptor_asks_the_context_for_is_not_intercepted() -> None:
    seen: list[str] = []

    async def note(call: Operation, proceed: Next) -> Any:
        seen.append(call.name)
        await call.context.step("audit", call.name)
        return await proceed(call)

    async def body(ctx: WorkflowContext) -> None:
        await ctx.step("charge")

    (command,) = decide(body, Around(note), operator=history(called(0, "audit"))).commands
    assert isinstance(command, ScheduleStep)
    assert command.name == "charge"
    assert seen == ["charge"]


def test_interceptors_and_body_draw_from_one_source_of_random_numbers() -> None:
    drawn: list[float] = []

    def draw(call: Operation, proceed: Callable[[Operation], Any]) -> Any:
        drawn.append(call.context.random.random())
        return proceed(call)

    async def body(ctx: WorkflowContext) -> None:
        drawn.append(ctx.random.random())

    decide(body, AroundImmediate(draw))
    assert len(set(drawn)) == 2


def test_what_undoes_a_step_of_an_interceptor_is_run_with_the_bodys_own() -> None:
    async def hold(call: Operation, proceed: Next) -> Any:
        if call.method == "step":
            await call.context.step("hold", compensate="let-go")
        return await proceed(call)

    async def body(ctx: WorkflowContext) -> None:
        await ctx.step("charge")
        raise FatalError("no")

    operator = history(called(0, "hold"), called(1, "charge"))
    (command,) = decide(body, Around(hold), operator=operator).commands
    assert isinstance(command, ScheduleStep)
    assert command.name == "let-go"


def test_what_a_compensation_is_given_keeps_the_bytes_of_the_output() -> None:
    async def body(ctx: WorkflowContext) -> None:
        await ctx.step("charge", compensate="refund")
        raise FatalError("no")

    (command,) = decide(
        body, Around(pass_on), operator=history(called(0, "charge", '{"amount": 1.50}'))
    ).commands
    assert isinstance(command, ScheduleStep)
    assert bytes(command.input) == b'{"input":null,"output":{"amount": 1.50}}'


def test_a_handler_can_be_given_the_signals_of_another_name() -> None:
    def rename(call: Operation, proceed: Callable[[Operation], Any]) -> Any:
        return proceed(call.replace(name=f"acme-{call.name}"))

    async def count(call: Operation, proceed: Next) -> Any:
        assert not isinstance(call, WaitOperation)
        assert call.name == "acme-told"
        return [await proceed(call)]

    class Both(Around, AroundImmediate):
        def __init__(self) -> None:
            self.hook = count  # type: ignore[assignment]

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


def test_sleeping_until_an_instant_reads_the_time_through_them() -> None:
    seen: list[str] = []

    def see(call: Operation, proceed: Callable[[Operation], Any]) -> Any:
        seen.append(f"{call} at {call.location}")
        return proceed(call) + timedelta(hours=1)

    async def body(ctx: WorkflowContext) -> None:
        await ctx.sleep_until(datetime.fromtimestamp(1_000, UTC) + timedelta(hours=2))

    _, timer = decide(body, AroundImmediate(see)).commands
    assert isinstance(timer, StartTimer)
    assert timer.ms == 3_600_000
    assert seen == [f"ctx.now() at {line_of(body, 1)}"]


# Mistakes


def failure_of(decision: WorkflowDecision) -> tuple[str | None, str]:
    assert decision.status is DecisionStatus.FAILED
    assert decision.error is not None
    return decision.error.code, decision.error.message


async def pass_on(call: Operation, proceed: Next) -> Any:
    return await proceed(call)


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
                call.replace(**changes)  # type: ignore[arg-type]
            raised.append(caught.value)
        return proceed(call)

    async def body(ctx: WorkflowContext) -> None:
        ctx.now()

    decide(body, AroundImmediate(change))
    assert [str(each) for each in raised] == [
        "ctx.now() has no name that could be replaced",
        "ctx.now() has no input that could be replaced",
    ]


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


def test_a_body_that_is_kept_is_intercepted_once() -> None:
    seen: list[str] = []

    async def see(call: Operation, proceed: Next) -> Any:
        seen.append(call.name)
        return await proceed(call)

    async def body(ctx: WorkflowContext) -> None:
        await ctx.step("a")
        await ctx.step("b")

    worker = Worker(interceptors=[Around(see)])
    worker.workflow("flow")(body)
    operator = ModelOperator()
    replay = new_replay(worker, operator.task())
    operator.apply(take_turn(replay, operator.task(), now_ms=0))
    operator.resolve(0)
    assert replay.can_continue(operator.task())
    operator.apply(take_turn(replay, operator.task(), now_ms=0))
    assert seen == ["a", "b"]
    replay.dispose()
