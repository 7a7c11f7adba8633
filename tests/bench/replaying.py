"""CPU to decode and to replay one turn over a long history."""

import asyncio
import statistics
import sys
import time
from collections.abc import Callable, Iterator

from msgspec import Raw

from durable_worker import Worker, WorkflowContext
from durable_worker.protocol import codec
from durable_worker.protocol.tasks import HistoryEvent, HistoryKind, WorkflowTask
from durable_worker.replay.turn import Replay
from tests.bench.context import Bench
from tests.bench.environments import PEERS
from tests.bench.figures import Reading, Side, Target
from tests.bench.registry import measures
from tests.bench.running import told_by

STEPS = 10_000
TEMPORAL_STEPS = 1_000
"""More cost its replayer more per step."""


@measures(
    Target(
        "replay_us_per_event",
        f"CPU of a turn over {STEPS:,} resolved steps, from message to decision, per event",
        "us",
        at_most=3,
    ),
    Target("replay_vs_temporal", "CPU per step of Temporal's Replayer over that", at_least=300),
)
def replay_us_per_event(bench: Bench) -> Iterator[Reading]:
    ours = told_by(
        [
            sys.executable,
            "-m",
            "tests.bench.programs.replay_turn",
            str(STEPS),
            bench.pick("7", "15"),
        ]
    )
    yield Reading("replay_us_per_event", tuple(ours))
    script = PEERS / "temporal" / "replay.py"
    theirs = told_by([bench.python("temporal"), script, str(TEMPORAL_STEPS), bench.pick("3", "7")])
    yield Reading(
        "replay_vs_temporal",
        tuple(each / statistics.median(ours) for each in theirs),
        (Side("ours", "us", tuple(ours)), Side("Temporal", "us", tuple(theirs))),
        f"Temporal over {TEMPORAL_STEPS:,} steps, without its sandbox",
    )


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
