"""Start-up beside the least that any program of its kind must do, and what an idle worker holds."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import aio_pika

from durable_worker.protocol import codec
from durable_worker.protocol.names import Names
from durable_worker.protocol.tasks import StepTask
from durable_worker.transports.base import Envelope
from durable_worker.transports.rabbitmq import RabbitTransport
from tests.bench.context import Bench
from tests.bench.environments import ROOT
from tests.bench.figures import Reading, Target, UnavailableError
from tests.bench.processes import Program, environment
from tests.bench.registry import measures
from tests.broker import new_prefix

STEP = "bench.first"
IDLE_SECONDS = 5.0
CLI = (sys.executable, "-m", "durable_worker")


@measures(
    Target("import_ratio", "`import durable_worker` over `import asyncio, msgspec`", at_most=1.6)
)
def import_ratio(bench: Bench) -> Iterator[Reading]:
    def ours() -> float:
        return run_to_end("import durable_worker")

    def theirs() -> float:
        return run_to_end("import asyncio, msgspec")

    theirs(), ours()  # warm the file cache
    pairs = bench.pairs(ours, theirs, quick=7, full=15)
    yield pairs.reading("import_ratio", "ms", ("ours", "bare"))


@measures(
    Target(
        "first_message_ratio",
        "`durable-worker run` to its first message over a bare aio-pika consumer",
        at_most=1.5,
    )
)
def first_message_ratio(bench: Bench) -> Iterator[Reading]:
    url, names = bench.broker.url, Names(prefix=new_prefix())

    def ours() -> float:
        asyncio.run(put_one(url, names))
        return run_to_bell([*CLI, *run_options(url, names)])

    def theirs() -> float:
        asyncio.run(put_one(url, names))
        bare = [sys.executable, "-m", "tests.bench.bare_consumer"]
        return run_to_bell([*bare, url, names.tasks(STEP)])

    theirs(), ours()
    pairs = bench.pairs(ours, theirs, quick=5, full=11)
    yield pairs.reading("first_message_ratio", "ms", ("ours", "bare"))


@measures(
    Target("rss_idle_mb", "resident memory of an idle `durable-worker run`", "MB", at_most=60)
)
def rss_idle_mb(bench: Bench) -> Iterator[Reading]:
    url = bench.broker.url

    def resident() -> float:
        names = Names(prefix=new_prefix())
        with Program([*CLI, *run_options(url, names)]) as worker:
            time.sleep(IDLE_SECONDS)
            worker.require_running()
            return worker.rss_megabytes()

    yield Reading("rss_idle_mb", tuple(resident() for _ in range(bench.pick(1, 3))))


def run_options(url: str, names: Names) -> list[str]:
    return ["run", "tests.bench.app:worker", "--broker", url, "--prefix", names.prefix]


async def put_one(url: str, names: Names) -> None:
    """Exactly one message on the queue, whatever an earlier measurement left there."""
    queue = names.tasks(STEP)
    async with RabbitTransport(url, names=names) as transport:
        # As an operator leaves them.
        await transport.declare([queue, names.results, names.decisions, names.step_events])
        connection = await aio_pika.connect(url)
        async with connection:
            channel = await connection.channel()
            await (await channel.get_queue(queue)).purge()
        task = StepTask(run_id="bench", seq=0, name=STEP, step_id="bench:0", group=STEP, attempt=1)
        await transport.send(queue, Envelope("step-task", codec.encode(task), "bench:0:1"))


def run_to_end(code: str) -> float:
    """Milliseconds that `python -c code` takes."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), check=True)
    return 1_000 * (time.perf_counter() - started)


def run_to_bell(command: Sequence[str]) -> float:
    """Milliseconds until the program rings; it is told to stop then."""
    reading, writing = os.pipe()
    try:
        started = time.perf_counter()
        with Program(command, env=environment(BENCH_BELL=str(writing)), pass_fds=[writing]) as it:
            os.close(writing)
            rung = os.read(reading, 1)
            milliseconds = 1_000 * (time.perf_counter() - started)
            if not rung:
                raise UnavailableError(f"ended without receiving a message: {it.said()}")
    finally:
        os.close(reading)
    return milliseconds
