"""The measurements, each with the rows that it fills."""

import importlib
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from tests.bench.context import Bench
from tests.bench.figures import Reading, Target

MODULES = (
    "tests.bench.startup",
    "tests.bench.replaying",
    "tests.bench.worker.throughput",
    "tests.bench.worker.latency",
    "tests.bench.checks",
    "tests.bench.embedded",
    "tests.bench.postgres",
    "tests.bench.operators",
    "tests.bench.sequential",
    "tests.bench.nestjs",
    "tests.bench.fanout",
)
"""Modules with measurements, in the order of the table."""

Measure: TypeAlias = Callable[[Bench], Iterable[Reading]]

QUICK_SECONDS = 180.0
FULL_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Measurement:
    """Fills its targets; each may come out as soon as it is known. It is broken off after a time
    limit that has nothing to do with what is measured."""

    targets: tuple[Target, ...]
    measure: Measure

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(target.key for target in self.targets)


_measurements: list[Measurement] = []


def measures(*targets: Target) -> Callable[[Measure], Measure]:
    """Registers a function that yields one `Reading` for each target, in any order.

    It raises `UnavailableError` where a peer cannot be had; readings yielded before that count.
    """

    def register(measure: Measure) -> Measure:
        _measurements.append(Measurement(targets, measure))
        return measure

    return register


def measurements(only: Collection[str] = ()) -> list[Measurement]:
    """All, or those that fill one of these keys. Raises `KeyError` for a key that nobody fills."""
    for module in MODULES:
        importlib.import_module(module)
    known = {key for measurement in _measurements for key in measurement.keys}
    if unknown := sorted(set(only) - known):
        raise KeyError(
            f"nothing measures {', '.join(unknown)}; there are {', '.join(sorted(known))}"
        )
    return [m for m in _measurements if not only or set(m.keys) & set(only)]
