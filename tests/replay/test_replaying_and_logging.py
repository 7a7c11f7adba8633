"""A body knows whether it goes over what it did before, and logs it once."""

import asyncio
from collections import Counter
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from durable_worker import Worker, WorkflowContext
from durable_worker.interceptors import Interceptor, Operation, Proceed
from durable_worker.protocol.commands import DecisionStatus
from durable_worker.protocol.tasks import HistoryEvent, HistoryKind, WorkflowTask
from durable_worker.replay.definitions import WorkflowDefinition
from durable_worker.replay.logger import LogSink
from durable_worker.replay.turn import Replay
from tests.replay.bodies import Node, worker_for
from tests.replay.driving import resolve
from tests.replay.model import Body, ModelOperator, take_turn
from tests.replay.test_bodies_in_any_order import nodes


class Lines:
    """A structlog logger reduced to what a body may call."""

    def __init__(self) -> None:
        self.all: list[tuple[str, str, dict[str, Any]]] = []

    def debug(self, event: str, /, *args: Any, **fields: Any) -> None:
        self.all.append(("debug", event % args, fields))

    def info(self, event: str, /, *args: Any, **fields: Any) -> None:
        self.all.append(("info", event % args, fields))

    def warning(self, event: str, /, *args: Any, **fields: Any) -> None:
        self.all.append(("warning", event % args, fields))

    def error(self, event: str, /, *args: Any, **fields: Any) -> None:
        self.all.append(("error", event % args, fields))

    def critical(self, event: str, /, *args: Any, **fields: Any) -> None:
        self.all.append(("critical", event % args, fields))

    def exception(self, event: str, /, *args: Any, **fields: Any) -> None:
        self.all.append(("exception", event % args, fields))

    @property
    def events(self) -> list[str]:
        return [event for _, event, _ in self.all]


def logging_replay(worker: Worker, task: WorkflowTask, sink: LogSink) -> Replay:
    definition: WorkflowDefinition = worker.workflows[task.workflow, task.workflow_version]
    replay = Replay(definition, task, worker.new_context)
    replay.log_sink = sink
    return replay


def full_turn(body: Body | Worker, operator: ModelOperator, sink: LogSink) -> Any:
    if isinstance(body, Worker):
        worker = body
    else:
        worker = Worker()
        worker.workflow("flow")(body)
    task = operator.task()
    replay = logging_replay(worker, task, sink)
    try:
        decision = take_turn(replay, task, now_ms=operator.now_ms)
    finally:
        replay.dispose()
    operator.apply(decision)
    return decision


def test_a_line_is_logged_in_the_turn_that_comes_there_first_and_not_on_replay() -> None:
    async def body(ctx: WorkflowContext) -> None:
        ctx.logger.info("begun")
        try:
            await ctx.step("a")
            ctx.logger.info("after a")
            ctx.now()
            await asyncio.sleep(5)
            ctx.logger.info("slept")
        finally:
            ctx.logger.info("left")

    operator, told = ModelOperator(), []
    for _ in range(3):
        lines = Lines()
        full_turn(body, operator, lines)
        told.append(lines.events)
        for seq in list(operator.pending):
            operator.resolve(seq)
    assert told == [["begun"], ["after a"], ["slept", "left"]]


def test_branches_that_went_on_in_an_earlier_turn_are_replayed_in_silence() -> None:
    async def branch(ctx: WorkflowContext, name: str) -> None:
        await ctx.step(name)
        ctx.logger.info(f"{name} done")
        await ctx.step(f"{name} again")
        ctx.logger.info(f"{name} done again")

    async def body(ctx: WorkflowContext) -> None:
        await asyncio.gather(branch(ctx, "a"), branch(ctx, "b"))

    operator, told = ModelOperator(), []
    for answered in (None, 1, 0, 3):
        if answered is not None:
            operator.resolve(answered)
        lines = Lines()
        full_turn(body, operator, lines)
        told.append(lines.events)
    assert told == [[], ["b done"], ["a done"], ["b done again"]]


def test_is_replaying_tells_what_history_already_holds() -> None:
    told: list[bool] = []

    async def body(ctx: WorkflowContext) -> None:
        try:
            for _ in range(2):
                told.append(ctx.is_replaying)
                await ctx.step("a")
            told.append(ctx.is_replaying)
            await ctx.step("b")
        finally:
            told.append(ctx.is_replaying)

    done = (
        HistoryEvent(seq=seq, kind=HistoryKind.CALL, name="a", output=Raw(b"1")) for seq in (0, 1)
    )
    full_turn(body, ModelOperator(history={each.seq: each for each in done}), Lines())
    assert told == [True, True, False, True]  # the last while the body is unwound


def test_a_logger_says_which_run_it_is_and_what_was_bound_to_it() -> None:
    async def body(ctx: WorkflowContext) -> None:
        log = ctx.logger.bind(order="o-1", step="pay")
        log.debug("d")
        log.info("i %s", 1)
        log.unbind("step").warning("w", more=2)
        log.error("e")
        log.critical("c")
        try:
            raise ValueError
        except ValueError:
            log.exception("x")

    lines = Lines()
    full_turn(body, ModelOperator(), lines)
    run = {"run_id": "run-1", "workflow": "flow", "order": "o-1"}
    bound = {**run, "step": "pay"}
    assert lines.all == [
        ("debug", "d", bound),
        ("info", "i 1", bound),
        ("warning", "w", {**run, "more": 2}),
        ("error", "e", bound),
        ("critical", "c", bound),
        ("exception", "x", bound),
    ]


class Telling(Interceptor):
    """Logs the end of each operation, and notes it whether or not it is logged."""

    def __init__(self) -> None:
        self.happened: Counter[str] = Counter()

    async def operation(self, call: Operation, proceed: Proceed[Operation, Any], /) -> Any:
        outcome = "failed"
        try:
            outcome = str(await proceed(call))
            return outcome
        finally:
            if not call.context._journal.is_sealed:
                self.happened[f"{call} {outcome}"] += 1
                call.context.logger.info(f"{call} {outcome}".replace("%", "%%"))


@given(node=nodes, seed=st.integers(0, 2**32))
def test_whatever_happened_in_a_run_was_logged_at_least_once(node: Node, seed: int) -> None:
    operator, chance, lines = ModelOperator(), Random(seed), Lines()
    while operator.final is None:
        telling = Telling()
        decision = full_turn(worker_for(node, interceptors=[telling]), operator, lines)
        if decision.status is DecisionStatus.CONTINUE:
            waiting = sorted(operator.pending)
            for seq in chance.sample(waiting, chance.randint(1, min(3, len(waiting)))):
                resolve(operator, seq, chance)
    assert telling.happened <= Counter(lines.events)
