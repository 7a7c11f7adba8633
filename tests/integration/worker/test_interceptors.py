"""Interceptors of a served worker: around steps and turns, seen from the operator's side."""

import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import structlog
from msgspec import Raw, UnsetType
from msgspec.structs import replace

from durable_worker import FatalError, Retry, StepContext, Worker, WorkflowContext, current_step
from durable_worker.interceptors import Interceptor, Proceed, StepExecution, TurnExecution
from durable_worker.protocol.commands import DecisionStatus, RecordStep, WorkflowDecision
from durable_worker.protocol.names import Names
from durable_worker.protocol.results import ResultStatus
from durable_worker.protocol.tasks import HistoryEvent, HistoryKind
from durable_worker.transports.memory import MemoryTransport
from tests.integration.worker.desk import serving

pytestmark = pytest.mark.anyio
NAMES = Names()


@pytest.fixture
async def transport() -> AsyncIterator[MemoryTransport]:
    async with MemoryTransport(names=NAMES) as opened:
        yield opened


class Doubling(Interceptor):
    """Doubles what a step is given, and adds a hundred to what it returns."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, object]] = []

    async def step(self, call: StepExecution, proceed: Proceed[StepExecution, Any], /) -> Any:
        assert current_step() is call.context
        self.seen.append((call.context.name, call.context.attempt, call.input))
        return 100 + await proceed(call.replace(input=call.input * 2))


class Refusing(Interceptor):
    def __init__(self, error: Exception, *, times: int = 1_000) -> None:
        self.error = error
        self.left = times

    async def step(self, call: StepExecution, proceed: Proceed[StepExecution, Any], /) -> Any:
        output = await proceed(call)
        self.left -= 1
        if self.left >= 0:
            raise self.error
        return output


async def test_a_step_is_given_and_answers_what_the_interceptor_says(
    transport: MemoryTransport,
) -> None:
    doubling, contexts = Doubling(), list[StepContext]()
    worker = Worker(interceptors=[doubling])

    @worker.step("async")
    async def with_context(ctx: StepContext, number: int) -> int:
        contexts.append(ctx)
        return number

    @worker.step("threaded")
    def threaded(number: int) -> int:
        assert threading.current_thread() is not threading.main_thread()
        return number

    async with serving(worker, transport, NAMES) as desk:
        await desk.send_step("async", 1, attempt=2)
        first = await desk.result()
        await desk.send_step("threaded", 2)
        second = await desk.result()
    assert (bytes(first.output), bytes(second.output)) == (b"102", b"104")
    assert doubling.seen == [("async", 2, 1), ("threaded", 1, 2)]
    assert contexts[0].attempt == 2


async def test_a_step_that_takes_nothing_is_not_given_anything(transport: MemoryTransport) -> None:
    class Giving(Interceptor):
        async def step(self, call: StepExecution, proceed: Proceed[StepExecution, Any], /) -> Any:
            assert call.input is None
            return await proceed(call.replace(input=1) if call.context.seq else call)

    worker = Worker(interceptors=[Giving()])

    @worker.step("poll")
    async def poll() -> str:
        return "polled"

    async with serving(worker, transport, NAMES) as desk:
        await desk.send_step("poll", 5, seq=0)
        fine = await desk.result()
        await desk.send_step("poll", 5, seq=1)
        wrong = await desk.result()
    assert bytes(fine.output) == b'"polled"'
    assert wrong.error is not None
    assert (wrong.error.code, wrong.error.message) == (
        "interceptor",
        "'poll' takes no input that could be replaced",
    )


async def test_an_error_of_the_interceptor_fails_the_attempt_as_the_steps_own_would(
    transport: MemoryTransport,
) -> None:
    worker = Worker(interceptors=[Refusing(FatalError("not today"))])

    @worker.step("charge")
    async def charge() -> int:
        return 1

    async with serving(worker, transport, NAMES) as desk:
        await desk.send_step("charge")
        result = await desk.result()
    assert result.status is ResultStatus.FAILED
    assert result.error is not None
    assert (result.error.message, result.error.retryable) == ("not today", False)


async def test_each_attempt_at_a_local_step_passes_through(transport: MemoryTransport) -> None:
    doubling = Doubling()
    worker = Worker(interceptors=[Refusing(OSError("flaky"), times=2), doubling])
    quick = Retry(attempts=3, initial=timedelta(milliseconds=1), jitter=0)

    @worker.step("lookup", retries=quick)
    async def lookup(number: int) -> int:
        return number

    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext) -> int:
        return await ctx.local_step(lookup, 3)

    async with serving(worker, transport, NAMES) as desk:
        await desk.send_turn("flow")
        decision = await desk.decision()
    (record,) = decision.commands
    assert isinstance(record, RecordStep)
    assert bytes(decision.output) == b"106"
    assert doubling.seen == [("lookup", attempt, 3) for attempt in (1, 2, 3)]


class AroundTurns(Interceptor):
    """Sees turns, may do I/O in between, and can put a decision of its own in the place of one."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, str, str]] = []

    async def turn(
        self, call: TurnExecution, proceed: Proceed[TurnExecution, WorkflowDecision], /
    ) -> WorkflowDecision:
        await anyio.lowlevel.checkpoint()
        decision = await proceed(call.replace(task=replace(call.task, input=Raw(b"20"))))
        self.seen.append((call.run_id, call.workflow, call.version, decision.status.value))
        assert not isinstance(decision.output, UnsetType)
        return replace(decision, output=Raw(b"[%b]" % bytes(decision.output)))


async def test_a_turn_is_taken_for_the_task_and_answers_the_decision_that_it_says(
    transport: MemoryTransport,
) -> None:
    around = AroundTurns()
    worker = Worker(interceptors=[around])

    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext, number: int) -> int:
        return number + 1

    async with serving(worker, transport, NAMES) as desk:
        await desk.send_turn("flow")
        decision = await desk.decision()
    assert decision.status is DecisionStatus.COMPLETED
    assert bytes(decision.output) == b"[21]"
    assert around.seen == [("run-1", "flow", "1", "completed")]


async def test_an_error_around_a_turn_gives_the_task_back_and_leaves_the_run_as_it_is(
    transport: MemoryTransport,
) -> None:
    class FailingTwice(Interceptor):
        turns = 0

        async def turn(
            self, call: TurnExecution, proceed: Proceed[TurnExecution, WorkflowDecision], /
        ) -> WorkflowDecision:
            decision = await proceed(call)
            self.turns += 1
            if self.turns < 3:
                raise OSError("the audit log is unreachable")
            return decision

    failing, starts = FailingTwice(), list[bool]()
    worker = Worker(interceptors=[failing])

    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext) -> float:
        starts.append(ctx.is_replaying)
        ctx.now()
        await ctx.step("charge")
        return 0

    async with serving(worker, transport, NAMES) as desk:
        turn = await desk.send_turn("flow")
        decision = await desk.decision()
    assert decision.task_id == turn.task_id
    assert [each.seq for each in decision.commands] == [0, 1]
    assert failing.turns == 3
    assert starts == [False] * 3


async def test_a_body_logs_through_structlog_where_it_comes_for_the_first_time(
    transport: MemoryTransport,
) -> None:
    worker = Worker()

    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext) -> None:
        ctx.logger.info("asks_for_a_charge", order="o-1")
        await ctx.step("charge")
        ctx.logger.info("was_charged")
        await ctx.step("ship")

    charged = HistoryEvent(seq=0, kind=HistoryKind.CALL, name="charge", output=Raw(b"1"))
    with structlog.testing.capture_logs() as lines:
        async with serving(worker, transport, NAMES, kept_runs=0) as desk:
            for history in ([], [charged]):
                await desk.send_turn("flow", history)
                await desk.decision()
    run = {"run_id": "run-1", "workflow": "flow", "log_level": "info"}
    assert [line for line in lines if "charge" in line["event"]] == [
        {"event": "asks_for_a_charge", "order": "o-1", **run},
        {"event": "was_charged", **run},
    ]
