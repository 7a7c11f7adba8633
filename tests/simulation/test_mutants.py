"""The simulation can fail: it notices each of many ways to get the product wrong."""

import pytest

from durable_worker.testing.simulation.campaign import examined
from durable_worker.testing.simulation.chance import ALL_FAULTS, FaultKind
from durable_worker.testing.simulation.plan import Plan, Verdict
from durable_worker.testing.simulation.world import simulated
from tests.simulation.bodies import plan_for
from tests.simulation.mutants import MUTANTS, mutated

MOST_SEEDS = 2_000
KINDS = ALL_FAULTS - {FaultKind.CLOCK}


def plan(seed: int) -> Plan:
    """Clocks are right, so that two minutes are enough to tell that a run will never end."""
    return plan_for(seed, kinds=KINDS, patience=120.0)


LIKELY = (0, 5, 6, 7, 9, 14, 15, 19, 21, 35, 36, 107, 185, 228, 248, 289)
"""Seeds that have caught mutants before: tried first, to save time."""


def first_failure(most: int = MOST_SEEDS) -> Verdict | None:
    seeds = dict.fromkeys([*LIKELY, *range(most)])
    verdicts = (simulated(plan(seed), seed) for seed in seeds)
    return next((each for each in verdicts if each.violations), None)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name: str) -> None:
    with mutated(name):
        assert first_failure() is not None, f"nothing has noticed that {name}"


def test_without_a_mutant_nothing_is_caught() -> None:
    assert first_failure(100) is None


def test_a_failing_seed_is_told_with_the_fewest_faults_that_it_needs() -> None:
    with mutated("the operator acknowledges before it commits"):
        verdict = first_failure()
        assert verdict is not None
        failure = examined(plan(verdict.seed), verdict)
        assert 1 <= len(failure.faults) < len(verdict.faults)
        assert set(failure.faults) <= set(verdict.faults)
        for left_out in failure.faults:
            fewer = [each for each in failure.faults if each != left_out]
            assert not simulated(plan(verdict.seed), verdict.seed, only=fewer).violations
    told = str(failure)
    assert f"seed {verdict.seed} fails" in told
    assert all(str(each) in told for each in failure.faults)
    assert "took" in told
