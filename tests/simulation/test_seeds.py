"""Worlds under faults: every promise holds in each of them."""

import os
import subprocess
import sys

import pytest

from durable_worker.testing.simulation.campaign import campaign
from durable_worker.testing.simulation.chance import FaultKind
from durable_worker.testing.simulation.world import simulated
from tests.simulation.bodies import plan_for

SEEDS = int(os.environ.get("DURABLE_SIMULATION_SEEDS", "10000" if os.environ.get("CI") else "500"))
FIRST = int(os.environ.get("DURABLE_SIMULATION_FIRST_SEED", "0"))

SHIFT = 1_000
"""Seeds of one test: so many end within the time of a test on slow machines, too."""


@pytest.mark.parametrize("first", range(FIRST, FIRST + SEEDS, SHIFT))
def test_every_promise_holds_in_every_world(first: int) -> None:
    seeds = range(first, min(first + SHIFT, FIRST + SEEDS))
    report = campaign(plan_for, seeds)
    assert not report.failures, "\n\n".join(map(str, report.failures))
    assert report.seeds == len(seeds)
    if report.seeds >= SHIFT:
        # No kind of fault is there in name only.
        assert report.faults.keys() == {kind.value for kind in FaultKind}


@pytest.mark.parametrize("kind", FaultKind)
def test_each_kind_of_fault_hits_alone_and_is_survived(kind: FaultKind) -> None:
    verdicts = [simulated(plan_for(seed, kinds=frozenset({kind})), seed) for seed in range(25)]
    assert [each.violations for each in verdicts if each.violations] == []
    assert {fault.kind for each in verdicts for fault in each.faults} <= {kind}


def test_without_faults_no_attempt_runs_twice() -> None:
    for seed in range(50):
        verdict = simulated(plan_for(seed), seed, only=())
        assert (verdict.violations, verdict.faults) == ((), ())


_DIGESTS = """
from durable_worker.testing.simulation.world import simulated
from tests.simulation.bodies import plan_for
for seed in range(30):
    print(seed, simulated(plan_for(seed), seed, keeps_trace=True).digest)
"""


def test_a_seed_does_the_same_in_every_process() -> None:
    traces = {_output_with(hash_seed) for hash_seed in ("0", "1", "4711")}
    assert len(traces) == 1
    assert len(set(traces.pop().split())) > 30


def _output_with(hash_seed: str) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run(
        [sys.executable, "-c", _DIGESTS],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return done.stdout


def test_a_seed_does_the_same_when_it_is_repeated_with_its_own_faults() -> None:
    seed = next(s for s in range(100) if len(simulated(plan_for(s), s).faults) > 10)
    first = simulated(plan_for(seed), seed, keeps_trace=True)
    again = simulated(plan_for(seed), seed, only=first.faults, keeps_trace=True)
    assert (again.digest, again.faults) == (first.digest, first.faults)
