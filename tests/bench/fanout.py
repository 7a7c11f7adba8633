"""One workflow that gathers thousands of steps: time, CPU and memory, and how they grow."""

import asyncio
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from tests.bench import effects
from tests.bench.brokered import Fleet, brokered
from tests.bench.context import Bench
from tests.bench.figures import Reading, Side, Target, WrongResultError
from tests.bench.growth import exponent
from tests.bench.registry import measures
from tests.bench.running import scratch, told_by

COUNTS = (1_250, 2_500, 5_000)
RUN_TIME = timedelta(seconds=120)
LINEAR = 1.15


@dataclass(frozen=True)
class Fan:
    """`cpu`: of operator and worker together, in seconds. `peaks`: of each process, in MB."""

    seconds: float
    cpu: float
    peaks: list[float]


def targets(key: str, where: str) -> tuple[Target, Target]:
    return (
        Target(key, f"a workflow that gathers {COUNTS[-1]:,} steps, {where}", "s"),
        Target(f"{key}_exponent", f"growth of that from {COUNTS[0]:,} steps on", "power",
               at_most=LINEAR),
    )  # fmt: skip


@measures(*targets("fanout_5000", "operator and worker over RabbitMQ"))
def over_broker(bench: Bench) -> Iterator[Reading]:
    def fan(steps: int) -> Fan:
        with scratch() as folder:
            counted = folder / "effects"
            target, database = "tests.bench.programs.fan_app:worker", str(folder / "operator.db")
            with brokered(bench.broker.url, target, database, counted) as fleet:
                told = asyncio.run(run(fleet, steps))
            if effects.read(counted) != Counter(range(steps)):
                raise WrongResultError(f"not each of {steps} steps took effect once")
            return told

    yield from readings("fanout_5000", fan, rounds=bench.pick(1, 3), of=("operator", "worker"))


@measures(*targets("fanout_embedded_5000", "embedded on SQLite"))
def embedded(bench: Bench) -> Iterator[Reading]:
    def fan(steps: int) -> Fan:
        with scratch() as folder:
            program = [sys.executable, "-m", "tests.bench.programs.embedded_fan", str(steps)]
            return Fan(**told_by([*program, folder / "operator.db"]))

    yield from readings("fanout_embedded_5000", fan, rounds=bench.pick(1, 3), of=("process",))


async def run(fleet: Fleet, steps: int) -> Fan:
    async with fleet.client() as client:

        async def sum_of(steps: int) -> object:
            return await (await client.start("fan", steps)).result(timeout=RUN_TIME)

        await sum_of(0)
        both = (fleet.operator, fleet.worker)
        started, cpu = time.perf_counter(), sum(each.cpu_seconds() for each in both)
        output = await sum_of(steps)
        seconds = time.perf_counter() - started
        if output != sum(range(steps)):
            raise WrongResultError(f"{steps} steps gave {output}")
        return Fan(
            seconds,
            sum(each.cpu_seconds() for each in both) - cpu,
            [each.peak_megabytes() for each in both],
        )


def readings(
    key: str, fan: Callable[[int], Fan], *, rounds: int, of: tuple[str, ...]
) -> Iterator[Reading]:
    measured = [[fan(steps) for steps in COUNTS] for _ in range(rounds)]
    largest = [each[-1] for each in measured]
    peaks = [
        Side(f"peak of the {name}", "MB", tuple(each.peaks[place] for each in largest))
        for place, name in enumerate(of)
    ]
    yield Reading(
        key,
        tuple(each.seconds for each in largest),
        (*peaks, Side("CPU", "s", tuple(each.cpu for each in largest))),
    )
    spent = [
        f"{steps:,} in {statistics.median(each[place].seconds for each in measured):.1f} s"
        for place, steps in enumerate(COUNTS)
    ]
    by_cpu = statistics.median(exponent(COUNTS, [f.cpu for f in each]) for each in measured)
    yield Reading(
        f"{key}_exponent",
        tuple(exponent(COUNTS, [f.seconds for f in each]) for each in measured),
        note=f"{', '.join(spent)}; that of the CPU {by_cpu:.2f}",
    )
