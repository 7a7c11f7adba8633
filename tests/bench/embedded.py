"""Durable steps per second and the latency of one, of an operator embedded in one process."""

import statistics
import sys
from collections.abc import Iterator, Sequence

from tests.bench import load
from tests.bench.context import Bench
from tests.bench.environments import PEERS
from tests.bench.figures import Reading, Target
from tests.bench.load import STEPS, Outcome, Plan
from tests.bench.programs import restate
from tests.bench.registry import measures
from tests.bench.running import scratch, told_by

CONCURRENCY = 100
SHAPE = f"steps/s, workflows of {STEPS} no-op steps, {CONCURRENCY} at a time"
OUR_DATABASE, THEIR_DATABASE = "{}/ours.db", "sqlite:///{}/theirs.db"
OURS = (sys.executable, "-m", "tests.bench.programs.embedded_runs")


@measures(Target("embedded_steps_vs_dbos", f"{SHAPE}, embedded on SQLite, over DBOS", at_least=20))
def against_dbos(bench: Bench) -> Iterator[Reading]:
    theirs = dbos(bench)

    def steps_of(program: Sequence[str], database: str, runs: int) -> float:
        with scratch() as folder:
            plan = Plan(runs, STEPS, CONCURRENCY, database.format(folder))
            return steps_per_second(plan, run(program, plan))

    pairs = bench.pairs(
        lambda: steps_of(OURS, OUR_DATABASE, bench.pick(400, 2_000)),
        lambda: steps_of(theirs, THEIR_DATABASE, bench.pick(100, 300)),
        quick=2,
        full=5,
    )
    yield pairs.reading("embedded_steps_vs_dbos", "steps/s", ("ours", "DBOS"))


@measures(
    Target("embedded_latency_ms_vs_dbos", "p50 of a workflow of one step, to DBOS", at_most=0.25)
)
def latency_to_dbos(bench: Bench) -> Iterator[Reading]:
    theirs = dbos(bench)

    def latency_of(program: Sequence[str], database: str) -> float:
        with scratch() as folder:
            plan = Plan(bench.pick(100, 300), 1, 1, database.format(folder))
            return statistics.median(run(program, plan).latencies_ms)

    pairs = bench.pairs(
        lambda: latency_of(OURS, OUR_DATABASE),
        lambda: latency_of(theirs, THEIR_DATABASE),
        quick=2,
        full=5,
    )
    yield pairs.reading("embedded_latency_ms_vs_dbos", "ms", ("ours", "DBOS"))


@measures(Target("embedded_steps_vs_restate", f"{SHAPE}, over Restate", at_least=4))
def against_restate(bench: Bench) -> Iterator[Reading]:
    python, packages = bench.python("restate"), bench.node("restate-server")

    def ours() -> float:
        with scratch() as folder:
            plan = Plan(bench.pick(400, 2_000), STEPS, CONCURRENCY, f"{folder}/ours.db")
            return steps_per_second(plan, run(OURS, plan))

    def theirs() -> float:
        program = (sys.executable, "-m", "tests.bench.programs.restate_load")
        with scratch() as folder, restate.served(python, packages, folder, steps=STEPS) as url:
            plan = Plan(bench.pick(200, 1_000), STEPS, CONCURRENCY, url)
            return steps_per_second(plan, run(program, plan))

    pairs = bench.pairs(ours, theirs, quick=2, full=5)
    yield pairs.reading("embedded_steps_vs_restate", "steps/s", ("ours", "Restate"))


def dbos(bench: Bench) -> Sequence[str]:
    return (str(bench.python("dbos")), str(PEERS / "dbos" / "runs.py"))


def run(program: Sequence[str], plan: Plan) -> Outcome:
    return Outcome(**told_by([*program, *load.arguments(plan)]))


def steps_per_second(plan: Plan, outcome: Outcome) -> float:
    return plan.runs * plan.steps / outcome.seconds
