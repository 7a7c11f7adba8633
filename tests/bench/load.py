"""One load for every engine: workflows of sequential no-op steps, so many at a time.

Programs of peers import this in environments of their own: nothing but the standard library.
"""

import argparse
import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass

BASE = 10_000
"""Step `n` of run `i` has the input `i * BASE + n`."""
STEPS = 10
"""Of one workflow."""


@dataclass(frozen=True)
class Plan:
    runs: int
    steps: int
    concurrency: int
    place: str
    """A database, a broker or whatever else the program needs."""

    @property
    def warm(self) -> int:
        """Runs before those that are counted."""
        return max(1, min(self.concurrency, self.runs // 4))


@dataclass(frozen=True)
class Outcome:
    """`cpu` is that of the loading process, threads included."""

    seconds: float
    cpu: float
    latencies_ms: list[float]


def stated() -> Plan:
    parser = argparse.ArgumentParser()
    for name in ("runs", "steps", "concurrency"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--place", required=True)
    return Plan(**vars(parser.parse_args()))


def arguments(plan: Plan) -> list[str]:
    return [part for name, value in asdict(plan).items() for part in (f"--{name}", str(value))]


async def drive(plan: Plan, run: Callable[[int], Awaitable[object]]) -> Outcome:
    """Calls `run(index)`, which starts a workflow and gives its output. The first ones
    warm everything up and are not counted. Raises `AssertionError` for a wrong output."""
    latencies: list[float] = []
    indexes = iter(range(plan.warm + plan.runs))

    async def several(count: int) -> None:
        for _ in range(count):
            index = next(indexes)
            started = time.perf_counter()
            output = await run(index)
            latencies.append(1_000 * (time.perf_counter() - started))
            assert output == value_of(index, plan.steps), f"run {index} gave {output!r}"

    await asyncio.gather(*(several(1) for _ in range(plan.warm)))
    latencies.clear()
    started, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(
        *(several(share) for share in _shares(plan.runs, plan.concurrency)),
    )
    return Outcome(time.perf_counter() - started, time.process_time() - cpu, latencies)


def _shares(total: int, parts: int) -> list[int]:
    return [total // parts + (part < total % parts) for part in range(parts)]


def value_of(index: int, steps: int) -> int:
    """What a workflow gives that adds up what its steps gave: each its input."""
    return sum(index * BASE + step for step in range(steps))


def check_effects(plan: Plan, effects: Counter[int]) -> None:
    """Raises `AssertionError` unless each step of each run took effect once."""
    runs = plan.runs + plan.warm
    wanted = Counter(index * BASE + step for index in range(runs) for step in range(plan.steps))
    assert effects == wanted, f"{len(wanted)} effects expected once each, {effects.total()} seen"


def tell(outcome: Outcome) -> None:
    print(json.dumps(asdict(outcome)), flush=True)
