"""CPU to decode and to replay one turn over a long history."""

import asyncio
import time
from collections.abc import Callable, Iterator

from msgspec import Raw

from durable_worker import Worker, WorkflowContext
from durable_worker.protocol import codec
from durable_worker.protocol.tasks import HistoryEvent, HistoryKind, WorkflowTask
from durable_worker.replay.turn import Replay
from tests.bench.context import Bench
from tests.bench.figures import Reading, Target
from tests.bench.registry import measures

STEPS = 10_000


@measures(
    *(
        Target(f"{part}_{workflow}", f"{part} of one turn over {STEPS:,} steps, {shape}", "ms")
        for workflow, shape in (("sequence", "one after the other"), ("gather", "all at once"))
        for part in ("decode", "replay")
    )
)
def replay(bench: Bench) -> Iterator[Reading]:
    worker = replay_worker()
    for workflow in ("sequence", "gather"):
        decoding, replaying = replay_ms(worker, workflow, rounds=bench.pick(5, 15))
        yield Reading(f"decode_{workflow}", decoding)
        yield Reading(f"replay_{workflow}", replaying)


def replay_worker() -> Worker:
    worker = Worker()

    @worker.step("s")
    async def step(number: int) -> int:
        return number

    @worker.workflow("sequence")
    async def sequence(ctx: WorkflowContext) -> int:
        total = 0
        for number in range(STEPS):
            total += await ctx.step(step, number)
        return total

    @worker.workflow("gather")
    async def gather(ctx: WorkflowContext) -> int:
        return sum(await asyncio.gather(*(ctx.step(step, n) for n in range(STEPS))))

    return worker


def replay_ms(
    worker: Worker, workflow: str, *, rounds: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Milliseconds of CPU to decode and to replay a history of `STEPS` steps."""
    history = [
        HistoryEvent(seq=n, kind=HistoryKind.CALL, name="s", output=Raw(b"%d" % n))
        for n in range(STEPS)
    ]
    body = codec.encode(
        WorkflowTask(
            task_id="t",
            run_id="r",
            workflow=workflow,
            workflow_version="1",
            history=history,
            group="g",
            attempt=1,
        )
    )
    decoding, replaying = [], []
    for _ in range(rounds):
        decoding.append(cpu_ms(lambda: codec.WORKFLOW_TASK.decode(body)))
        task = codec.WORKFLOW_TASK.decode(body)
        definition = worker.workflows[workflow, "1"]
        body_of_run = Replay(definition, task, lambda r, t: WorkflowContext(r, t, worker))
        replaying.append(cpu_ms(lambda: body_of_run.begin(task, now_ms=0)))  # noqa: B023
        body_of_run.dispose()
    return tuple(decoding), tuple(replaying)


def cpu_ms(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return 1000 * (time.process_time() - started)
