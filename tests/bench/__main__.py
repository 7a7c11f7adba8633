"""Measure start-up, replay and its checks on this machine, and print what was measured.

    python -m tests.bench            (make bench)

Start-up is compared with the least that any program of its kind must do, in the same run. Figures
also go to build/bench.json.
"""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict

import aio_pika
from msgspec import Raw

from durable_worker import Worker, WorkflowContext
from durable_worker.protocol import codec
from durable_worker.protocol.names import Names
from durable_worker.protocol.tasks import HistoryEvent, HistoryKind, StepTask, WorkflowTask
from durable_worker.replay.turn import Replay
from durable_worker.transports.base import Envelope
from durable_worker.transports.rabbitmq import RabbitTransport
from tests.bench import checks
from tests.bench.measure import ROOT, Ratio, in_pairs, run_to_bell, run_to_end
from tests.broker import new_prefix, open_broker

STEPS = 10_000
PAIRS = 11


def import_ratio() -> Ratio:
    return in_pairs(
        lambda: run_to_end("import durable_worker"),
        lambda: run_to_end("import asyncio, msgspec"),
        pairs=PAIRS,
    )


def first_message_ratio(url: str, names: Names) -> Ratio:
    queue = names.tasks("bench.first")
    run = ["run", "tests.bench.app:worker", "--broker", url, "--prefix", names.prefix]

    def ours() -> float:
        asyncio.run(put_one(url, names, queue))
        return run_to_bell([sys.executable, "-m", "durable_worker", *run])

    def theirs() -> float:
        asyncio.run(put_one(url, names, queue))
        return run_to_bell([sys.executable, "-m", "tests.bench.bare_consumer", url, queue])

    return in_pairs(ours, theirs, pairs=PAIRS)


async def put_one(url: str, names: Names, queue: str) -> None:
    """Exactly one message on the queue, whatever an earlier measurement left there."""
    async with RabbitTransport(url, names=names) as transport:
        await transport.declare([queue])
        connection = await aio_pika.connect(url)
        async with connection:
            channel = await connection.channel()
            await (await channel.get_queue(queue)).purge()
        task = StepTask(
            run_id="bench", seq=0, name="bench.first", step_id="bench:0", group="bench.first",
            attempt=1,
        )  # fmt: skip
        await transport.send(queue, Envelope("step-task", codec.encode(task), "bench:0:1"))


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


def replay_ms(worker: Worker, workflow: str) -> dict[str, float]:
    """Milliseconds of CPU to decode and to replay one turn over a history of `STEPS` steps."""
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
    decode, replay = [], []
    for _ in range(9):
        decode.append(cpu_ms(lambda: codec.WORKFLOW_TASK.decode(body)))
        task = codec.WORKFLOW_TASK.decode(body)
        definition = worker.workflows[workflow, "1"]
        body_of_run = Replay(definition, task, lambda r, t: WorkflowContext(r, t, worker))
        replay.append(cpu_ms(lambda: body_of_run.begin(task, now_ms=0)))  # noqa: B023
        body_of_run.dispose()
    return {"decode_ms": statistics.median(decode), "replay_ms": statistics.median(replay)}


def cpu_ms(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return 1000 * (time.process_time() - started)


def main() -> None:
    figures: dict[str, object] = {}
    with open_broker() as broker:
        for key, ratio in (
            ("import_ratio", import_ratio()),
            ("first_message_ratio", first_message_ratio(broker.url, Names(prefix=new_prefix()))),
        ):
            figures[key] = asdict(ratio)
            low, high = ratio.spread
            print(
                f"{key:<22}{ratio.ratio:>6.2f}   ours {ratio.ours_ms:.0f} ms, bare "
                f"{ratio.theirs_ms:.0f} ms; ratios {low:.2f} to {high:.2f}"
            )
    worker = replay_worker()
    for workflow in ("sequence", "gather"):
        measured = replay_ms(worker, workflow)
        figures[f"replay_{workflow}"] = measured
        print(
            f"{'replay_' + workflow:<22}{measured['replay_ms']:>6.0f} ms CPU for {STEPS:,} steps, "
            f"and {measured['decode_ms']:.0f} ms to decode their history"
        )
    for key, ratio in checks.report().items():
        figures[key] = asdict(ratio)
    target = ROOT / "build" / "bench.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
