"""Runs per second of an unmodified NestJS operator: on our transport with our worker, and on its
own with the original one. The operator's engine is the same and costs the same on both sides."""

import json
import statistics
import sys
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench import effects
from tests.bench.context import Bench
from tests.bench.environments import PEERS, ROOT
from tests.bench.figures import Pairs, Reading, Target, UnavailableError, WrongResultError
from tests.bench.processes import Program, environment
from tests.bench.registry import measures
from tests.bench.running import scratch, told_by
from tests.bench.worker.redis import URL, Redis
from tests.interop.building import build_transport, missing_node

CONCURRENCY = 100
WARM = 200
"""Runs that the operator starts before it measures."""
ORIGINAL_CONCURRENCY = 10
"""Where the original worker is fastest."""


@dataclass(frozen=True)
class Told:
    """`cpu`: of node, in seconds."""

    seconds: float
    cpu: float
    latencies: list[float]


@measures(
    Target(
        "nestjs_runs_vs_original",
        "runs/s of a TypeScript workflow with one Python step under a NestJS operator",
        at_least=2,
    ),
    Target("nestjs_cpu_vs_original", "CPU of that operator's process per run, to the original's"),
)
def nestjs(bench: Bench) -> Iterator[Reading]:
    if obstacle := missing_node():
        raise UnavailableError(obstacle)
    home, original = bench.node("nestjs"), bench.python("original")
    transport = build_transport()
    runs, cpu = Pairs(), Pairs()
    count = bench.pick(500, 3_000)

    def ours() -> Told:
        prefix = f"b{uuid.uuid4().hex[:10]}"
        url = bench.broker.url
        target = "tests.bench.programs.noop_app:worker"
        command = [sys.executable, "-m", "durable_worker", "run", target, "--log-format", "json"]
        settings = {"kind": "rabbitmq", "url": url, "prefix": prefix, "module": str(transport)}
        command += ["--broker", url, "--prefix", prefix]
        return measured(home, command, settings, count)

    def theirs() -> Told:
        prefix = f"b{uuid.uuid4().hex[:10]}"
        program = PEERS / "original" / "noop.py"
        command = [original, program, URL, prefix, str(ORIGINAL_CONCURRENCY), ROOT]
        settings = {"kind": "bullmq", "url": URL, "prefix": prefix}
        try:
            return measured(home, command, settings, count)
        finally:
            with Redis() as redis:
                redis.delete_all(f"*{prefix}-*")

    for _ in range(bench.pick(2, 4)):
        for told, in_runs, in_cpu in (
            (ours(), runs.ours, cpu.ours),
            (theirs(), runs.theirs, cpu.theirs),
        ):
            in_runs.append(count / told.seconds)
            in_cpu.append(1_000 * told.cpu / count)
    names = ("ours", "original")
    limit = 1_000 / statistics.median(cpu.ours)
    note = f"node's CPU alone allows {limit:,.0f} runs/s of ours"
    yield runs.reading("nestjs_runs_vs_original", "runs/s", names, note=note)
    yield cpu.reading("nestjs_cpu_vs_original", "ms of node", names)


def measured(
    home: Path,
    worker: Sequence[str | Path],
    settings: Mapping[str, str],
    count: int,
) -> Told:
    """Raises `WrongResultError` unless each step took effect once."""
    with scratch() as folder:
        counted = folder / "effects"
        with Program(worker, env=environment(**{effects.VARIABLE: str(counted)})) as serving:
            load = {**settings, "runs": count, "concurrency": CONCURRENCY, "warm": WARM}
            told = Told(**told_by(["node", home / "operator.mjs", json.dumps(load)]))
            serving.require_running()
        wanted = Counter(range(1, count + WARM + 1))
        if (seen := effects.read(counted)) != wanted:
            raise WrongResultError(
                f"{wanted.total()} steps expected once each, {len(seen)} took effect "
                f"{seen.total()} times"
            )
    return told
