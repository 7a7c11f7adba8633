"""What is left of a body once it has ended."""

import gc
import weakref

from durable_worker import Worker, WorkflowContext
from tests.replay.model import ModelOperator, new_replay, take_turn


async def flow(ctx: WorkflowContext) -> object:
    return await ctx.step("a")


def test_a_body_that_has_ended_needs_no_garbage_collector() -> None:
    worker, operator = Worker(), ModelOperator()
    worker.workflow("flow")(flow)
    gc.collect()
    gc.disable()
    try:
        replay = new_replay(worker, operator.task())
        operator.apply(take_turn(replay, operator.task(), now_ms=1))
        operator.resolve(0, "done")
        operator.apply(take_turn(replay, operator.task(), now_ms=2))
        assert operator.final is not None
        replay.dispose()
        is_freed = weakref.ref(replay)
        del replay
        assert is_freed() is None
    finally:
        gc.enable()
