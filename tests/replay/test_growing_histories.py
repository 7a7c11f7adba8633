"""A kept body is told only what a history adds, and still asks for all that it relies on."""

from msgspec import json

from durable_worker import Worker, WorkflowContext
from durable_worker.protocol.growing import History, TurnReader
from durable_worker.protocol.tasks import WorkflowTask
from durable_worker.replay.turn import Replay
from tests.replay.model import ModelOperator, new_replay, take_turn


async def flow(ctx: WorkflowContext) -> list[object]:
    first = await ctx.step("a")
    at = ctx.now().timestamp()
    return [first, at, await ctx.step("b")]


def kept_after_recording(operator: ModelOperator, reader: TurnReader) -> Replay:
    """A body whose last decision has recorded the time and asked for `b`; nothing is applied."""
    replay = new_replay(_worker(), operator.task())
    operator.apply(take_turn(replay, read(operator, reader), now_ms=1))
    operator.resolve(0, "done")
    task = read(operator, reader)
    assert replay.can_continue(task)
    decision = take_turn(replay, task, now_ms=2)
    assert [command.seq for command in decision.commands] == [1, 2]
    operator.final = decision
    return replay


def read(operator: ModelOperator, reader: TurnReader) -> WorkflowTask:
    task = reader.read(json.encode(operator.task()))
    reader.keep(task)
    return task


def test_a_kept_body_goes_on_where_the_history_holds_what_it_has_recorded() -> None:
    operator, reader = ModelOperator(), TurnReader(limit=1)
    replay = kept_after_recording(operator, reader)
    assert operator.final is not None
    operator.apply(operator.final)
    operator.resolve(2, "done too")
    task = read(operator, reader)
    assert isinstance(task.history, History)
    assert replay.can_continue(task)
    assert json.decode(take_turn(replay, task, now_ms=3).output) == ["done", 0.002, "done too"]


def test_a_kept_body_does_not_go_on_where_what_it_has_recorded_was_dropped() -> None:
    operator, reader = ModelOperator(), TurnReader(limit=1)
    replay = kept_after_recording(operator, reader)
    assert not replay.can_continue(read(operator, reader))
    replay.dispose()


def test_a_kept_body_does_not_go_on_where_something_else_was_recorded() -> None:
    operator, reader = ModelOperator(), TurnReader(limit=1)
    replay = kept_after_recording(operator, reader)
    another = new_replay(_worker(), operator.task())
    operator.apply(take_turn(another, operator.task(), now_ms=9_000))
    another.dispose()
    task = read(operator, reader)
    assert [event.seq for event in task.history] == [0, 1]
    assert not replay.can_continue(task)
    replay.dispose()


def test_a_body_that_has_not_seen_the_history_before_reads_all_of_the_next() -> None:
    operator, reader = ModelOperator(), TurnReader(limit=1)
    replay = kept_after_recording(operator, reader)
    assert operator.final is not None
    operator.apply(operator.final)
    missed = read(operator, reader)
    operator.resolve(2, "done too")
    task = read(operator, reader)
    assert task.history is missed.history
    assert replay.can_continue(task)
    assert json.decode(take_turn(replay, task, now_ms=3).output) == ["done", 0.002, "done too"]


def _worker() -> Worker:
    worker = Worker()
    worker.workflow("flow")(flow)
    return worker
