"""Many seeds, over all processors; what they have shown, and the failing ones made small."""

import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from msgspec import Struct, field

from durable_worker.testing.simulation.audit import Outcome
from durable_worker.testing.simulation.chance import Fault
from durable_worker.testing.simulation.minimal import fewest
from durable_worker.testing.simulation.plan import Plan, Verdict
from durable_worker.testing.simulation.trace import Line, around
from durable_worker.testing.simulation.world import simulated

PlanFor = Callable[[int], Plan]

MOST_FAILURES = 5
"""So many failing seeds are kept; then the rest need not be run."""


class Failure(Struct, frozen=True):
    """A seed in which something went wrong, with the fewest faults that bring it about."""

    seed: int
    violations: tuple[str, ...]
    faults: tuple[Fault, ...]
    injected: int
    lines: tuple[Line, ...]

    def __str__(self) -> str:
        told = ", ".join(map(str, self.faults)) or "none"
        return "\n".join(
            [
                f"seed {self.seed} fails, with {len(self.faults)} of {self.injected} faults "
                f"({told}):",
                *(f"  {each}" for each in self.violations),
                "",
                *map(str, self.lines),
            ]
        )


class Report(Struct):
    """What the seeds have shown. `outcomes` counts how runs have ended."""

    seeds: int = 0
    failures: list[Failure] = field(default_factory=list[Failure])
    faults: Counter[str] = field(default_factory=Counter[str])
    outcomes: dict[str, Counter[Outcome]] = field(default_factory=dict[str, Counter[Outcome]])
    virtual_seconds: float = 0.0
    calm: Outcome | None = None
    """How the run of a scene ends without faults."""

    def add(self, verdict: Verdict) -> None:
        self.seeds += 1
        self.virtual_seconds += verdict.seconds
        self.faults.update(each.kind.value for each in verdict.faults)
        for run_id, outcome in verdict.outcomes.items():
            self.outcomes.setdefault(run_id, Counter())[outcome] += 1

    def merge(self, other: "Report") -> None:
        self.seeds += other.seeds
        self.failures += other.failures
        self.faults += other.faults
        self.virtual_seconds += other.virtual_seconds
        for run_id, counts in other.outcomes.items():
            self.outcomes[run_id] = self.outcomes.get(run_id, Counter()) + counts


def examined(plan: Plan, verdict: Verdict) -> Failure:
    """What is to be known of a seed that has failed; it is run again with fewer faults."""

    def fails(faults: Sequence[Fault]) -> bool:
        return bool(simulated(plan, verdict.seed, only=faults).violations)

    least = fewest(verdict.faults, fails)
    again = simulated(plan, verdict.seed, only=least, keeps_trace=True)
    return Failure(
        verdict.seed,
        again.violations,
        least,
        len(verdict.faults),
        tuple(around(again.lines)),
    )


def campaign(plan_for: PlanFor, seeds: Iterable[int], *, processes: int | None = None) -> Report:
    """Simulate every seed; the plan of each is the caller's. Ends early after some failures."""
    wanted = list(seeds)
    count = min(processes or os.cpu_count() or 1, len(wanted))
    if count <= 1 or "fork" not in multiprocessing.get_all_start_methods():
        return _shift(plan_for, wanted)
    return _in_parallel(plan_for, [wanted[n::count] for n in range(count)])


def _shift(plan_for: PlanFor, seeds: Iterable[int]) -> Report:
    report = Report()
    for seed in seeds:
        plan = plan_for(seed)
        verdict = simulated(plan, seed)
        report.add(verdict)
        if verdict.violations:
            report.failures.append(examined(plan, verdict))
            if len(report.failures) >= MOST_FAILURES:
                break
    return report


def _in_parallel(plan_for: PlanFor, shifts: Sequence[Sequence[int]]) -> Report:
    context = multiprocessing.get_context("fork")
    report = Report()
    working: dict[Connection, Any] = {}
    for seeds in shifts:
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=_report_on, args=(there, plan_for, seeds))
        process.start()
        there.close()
        working[here] = process
    try:
        while working:
            for each in wait(list(working)):
                assert isinstance(each, Connection)
                process = working.pop(each)
                outcome = _received(each)
                process.join()
                if not isinstance(outcome, Report):
                    raise outcome
                report.merge(outcome)
    finally:
        for other in working.values():
            other.terminate()
    report.failures.sort(key=lambda failure: failure.seed)
    return report


def _received(connection: Connection) -> Report | BaseException:
    try:
        outcome = connection.recv()
    except EOFError:
        return RuntimeError("a process of the simulation has died")
    finally:
        connection.close()
    assert isinstance(outcome, Report | BaseException)
    return outcome


def _report_on(connection: Connection, plan_for: PlanFor, seeds: Sequence[int]) -> None:
    try:
        connection.send(_shift(plan_for, seeds))
    except Exception as error:
        connection.send(RuntimeError(f"{type(error).__name__}: {error}"))


def retold(plan: Plan, seed: int) -> list[Line]:
    """What happens in one world."""
    return around(simulated(plan, seed, keeps_trace=True).lines)
