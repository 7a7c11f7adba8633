"""A body that follows from its input alone is never accused, whatever it is made of."""

import asyncio
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from durable_worker import Worker, WorkflowContext
from durable_worker.protocol.commands import DecisionStatus, RecordStep, WorkflowDecision
from durable_worker.protocol.tasks import WorkflowTask
from durable_worker.replay.operations import LocalStep
from durable_worker.worker.determinism.checks import checks_for
from durable_worker.worker.determinism.policy import Determinism
from durable_worker.worker.turns import TurnRunner
from tests.replay.bodies import Node, worker_for
from tests.replay.driving import resolve
from tests.replay.model import ModelOperator, run_local
from tests.replay.test_bodies_in_any_order import nodes


async def run_locally(task: WorkflowTask, step: LocalStep) -> RecordStep:
    return run_local(step.name or "", step.seq, step.input)


async def decisions(worker: Worker, chance: Random) -> WorkflowDecision:
    """Kept bodies and full replays, results in any order, decisions dropped and half applied."""
    operator = ModelOperator()
    runner = TurnRunner(
        worker,
        run_locally=run_locally,
        kept=chance.choice([0, 1]),
        checks=checks_for(worker, Determinism.RAISE),
    )
    try:
        for _ in range(400):
            decision = await runner.decide(operator.task())
            fate = chance.random()
            if decision.status is not DecisionStatus.CONTINUE:
                return decision
            if fate < 0.1:
                continue
            if fate < 0.2:
                operator.apply(decision, only_first=chance.randrange(len(decision.commands) + 1))
                continue
            operator.apply(decision)
            waiting = sorted(operator.pending)
            for seq in chance.sample(waiting, chance.randint(1, min(3, len(waiting)))):
                resolve(operator, seq, chance)
    finally:
        runner.close()
    raise AssertionError("the run did not end")


@given(node=nodes, seed=st.integers(0, 2**32), fails=st.booleans())
def test_a_deterministic_body_is_neither_stopped_at_a_call_nor_by_a_second_replay(
    node: Node, seed: int, fails: bool
) -> None:
    decision = asyncio.run(decisions(worker_for(node, fails=fails), Random(seed)))
    code = decision.error.code if decision.error is not None else None
    assert code not in ("replay-diverged", "nondeterministic-call"), decision.error
    assert (decision.status is DecisionStatus.COMPLETED) is not fails, decision.error


@pytest.mark.anyio
async def test_what_a_body_logs_is_not_logged_by_its_second_replay() -> None:
    worker = Worker()

    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext) -> None:
        ctx.logger.info("begun")
        await ctx.step("a")

    runner = TurnRunner(
        worker, run_locally=run_locally, checks=checks_for(worker, Determinism.RAISE)
    )
    with capture_logs() as logged:
        decision = await runner.decide(ModelOperator().task())
    runner.close()
    assert decision.status is DecisionStatus.CONTINUE
    assert [each["event"] for each in logged] == ["begun"]
