"""What the checks of determinism add to a turn: with them and without, in turns of one process."""

import asyncio
import time
from collections.abc import Callable, Iterator

from msgspec import Raw

from durable_worker import Worker, WorkflowContext
from durable_worker.protocol.commands import RecordStep
from durable_worker.protocol.tasks import HistoryEvent, HistoryKind, WorkflowTask
from durable_worker.worker.determinism.calls import FIRST_TURNS, ONE_IN
from durable_worker.worker.determinism.checks import checks_for
from durable_worker.worker.determinism.policy import Determinism
from durable_worker.worker.turns import TurnRunner
from tests.bench.context import Bench
from tests.bench.figures import Pairs, Reading, Target
from tests.bench.registry import measures

LENGTHS = (1, 10, 100)


@measures(
    *(
        Target(f"turn_{policy}_{steps}", f"turn of {steps} steps, checks at `{policy}` over none")
        for policy in (Determinism.WARN, Determinism.RAISE)
        for steps in LENGTHS
    )
)
def turns(bench: Bench) -> Iterator[Reading]:
    for policy in (Determinism.WARN, Determinism.RAISE):
        for steps in LENGTHS:
            pairs = overhead(policy, steps, bench)
            yield pairs.reading(f"turn_{policy}_{steps}", "us", ("checked", "unchecked"))


def sequence() -> Worker:
    worker = Worker()

    @worker.workflow("sequence")
    async def body(ctx: WorkflowContext, steps: int) -> int:
        return sum([await ctx.step("s", number, returns=int) for number in range(steps)])

    return worker


def turn_over(steps: int) -> WorkflowTask:
    """A turn over a history of `steps`, after which the body asks for one more."""
    return WorkflowTask(
        task_id="t",
        run_id="r",
        workflow="sequence",
        workflow_version="1",
        input=Raw(b"%d" % (steps + 1)),
        history=[
            HistoryEvent(seq=n, kind=HistoryKind.CALL, name="s", output=Raw(b"%d" % n))
            for n in range(steps)
        ],
        group="sequence",
        attempt=1,
    )


def turns_with(determinism: Determinism, steps: int) -> Callable[[int], float]:
    """Takes a number of turns, gives the seconds of CPU that each took, all replayed from the top
    and past those that are watched because they are the first."""
    worker, task = sequence(), turn_over(steps)
    runner = TurnRunner(worker, run_locally=_refuse, kept=0, checks=checks_for(worker, determinism))

    async def decide(turns: int) -> float:
        started = time.process_time()
        for _ in range(turns):
            await runner.decide(task)
        return (time.process_time() - started) / turns

    def run(turns: int) -> float:
        return asyncio.run(decide(turns))

    run(FIRST_TURNS)
    return run


def overhead(determinism: Determinism, steps: int, bench: Bench) -> Pairs:
    """Of so many turns that sampling comes round; of turns that are all watched for `RAISE`."""
    turns = ONE_IN if determinism is Determinism.WARN else 20
    ours, theirs = turns_with(determinism, steps), turns_with(Determinism.OFF, steps)
    return bench.pairs(lambda: 1e6 * ours(turns), lambda: 1e6 * theirs(turns), quick=7, full=31)


async def _refuse(*_: object) -> RecordStep:
    raise AssertionError("there are no local steps")
