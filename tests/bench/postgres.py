"""Durable steps per second with the state in PostgreSQL: ours in an operator and a worker that
speak over RabbitMQ, those of DBOS in one process that needs no broker."""

import asyncio
import os
import secrets
import statistics
import subprocess
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench import effects, load
from tests.bench.brokered import CLI, Fleet, brokered
from tests.bench.context import Bench
from tests.bench.environments import PEERS, ROOT
from tests.bench.figures import Pairs, Reading, Target, UnavailableError, WrongResultError
from tests.bench.load import STEPS, Outcome, Plan
from tests.bench.processes import environment
from tests.bench.registry import measures
from tests.bench.running import scratch, told_by

SERVER = os.environ.get(
    "DURABLE_TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres"
)
CONCURRENCY = 100
APP = "tests.bench.programs.load_app:worker"


@measures(
    Target(
        "postgres_steps_vs_dbos",
        f"steps/s of workflows of {STEPS} no-op steps, {CONCURRENCY} at a time, on PostgreSQL",
        at_least=8,
    )
)
def postgres(bench: Bench) -> Iterator[Reading]:
    python = bench.python("dbos")
    url = bench.broker.url
    runs, pairs = bench.pick(100, 1_000), Pairs()
    costs: list[tuple[float, float]] = []
    for _ in range(bench.pick(2, 3)):
        with database(python) as ours, scratch() as folder:
            plan = Plan(runs, STEPS, CONCURRENCY, ours)
            prepare(ours)
            with brokered(url, APP, ours, folder / "effects") as fleet:
                outcome, cost = asyncio.run(drive(fleet, plan))
            pairs.ours.append(steps_per_second(plan, outcome))
            costs.append(cost)
            try:
                load.check_effects(plan, effects.read(folder / "effects"))
            except AssertionError as error:
                raise WrongResultError(str(error)) from error
        with database(python) as theirs:
            plan = Plan(bench.pick(100, 300), STEPS, CONCURRENCY, theirs)
            command = [python, PEERS / "dbos" / "runs.py", *load.arguments(plan)]
            pairs.theirs.append(steps_per_second(plan, Outcome(**told_by(command))))
    operator, worker = (statistics.median(each) for each in zip(*costs, strict=True))
    yield pairs.reading(
        "postgres_steps_vs_dbos",
        "steps/s",
        ("ours", "DBOS"),
        note=f"CPU per step: operator {operator:,.0f} us, worker {worker:,.0f} us",
    )


async def drive(fleet: Fleet, plan: Plan) -> tuple[Outcome, tuple[float, float]]:
    """And the microseconds of CPU that each step costs operator and worker."""

    def spent() -> tuple[float, float]:
        return fleet.operator.cpu_seconds(), fleet.worker.cpu_seconds()

    async with fleet.client() as client:

        async def run(index: int) -> object:
            handle = await client.start("sequence", index, run_id=f"run-{index}")
            return await handle.result()

        before = spent()
        outcome = await load.drive(plan, run)
        steps = (plan.runs + plan.warm) * plan.steps
        operator, worker = (
            1e6 * (now - then) / steps for now, then in zip(spent(), before, strict=True)
        )
        return outcome, (operator, worker)


def steps_per_second(plan: Plan, outcome: Outcome) -> float:
    return plan.runs * plan.steps / outcome.seconds


@contextmanager
def database(python: Path) -> Generator[str]:
    """The URL of a new one. Raises `UnavailableError`."""
    program = [python, PEERS / "dbos" / "database.py"]
    name = f"durable_bench_{secrets.token_hex(6)}"
    try:
        url = told_by([*program, "create", SERVER, name])
    except WrongResultError as error:
        raise UnavailableError(f"no PostgreSQL: {error}") from error
    try:
        yield url
    finally:
        told_by([*program, "drop", SERVER, name])


def prepare(url: str) -> None:
    """Creates our tables. Raises `UnavailableError`."""
    done = subprocess.run(
        [*CLI, "db", "upgrade", url], cwd=ROOT, env=environment(), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode != 0:
        said = " ".join(done.stderr.split())
        raise UnavailableError(f"our operator has no store for PostgreSQL yet: {said[-200:]}")
