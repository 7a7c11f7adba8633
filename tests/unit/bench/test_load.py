"""The load that all engines get, and how a cost's growth is read."""

import asyncio
from collections import Counter

import pytest

from tests.bench import load
from tests.bench.growth import exponent
from tests.bench.load import BASE, Plan

PLAN = Plan(runs=7, steps=3, concurrency=2, place="")


def test_warm_up_runs_are_started_and_not_counted() -> None:
    started: list[int] = []

    async def run(index: int) -> int:
        started.append(index)
        return load.value_of(index, PLAN.steps)

    outcome = asyncio.run(load.drive(PLAN, run))

    assert sorted(started) == list(range(8))
    assert len(outcome.latencies_ms) == 7


def test_so_many_runs_are_under_way_at_a_time() -> None:
    under_way, most = 0, 0

    async def run(index: int) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return load.value_of(index, PLAN.steps)

    asyncio.run(load.drive(PLAN, run))

    assert most == 2


def test_a_wrong_output_counts_for_nothing() -> None:
    async def run(index: int) -> int:
        return 5

    with pytest.raises(AssertionError, match="run 0 gave 5"):
        asyncio.run(load.drive(PLAN, run))


@pytest.mark.parametrize(
    "change", [{0: 0}, {BASE: 2}, {9 * BASE: 1}], ids=["lost", "twice", "alien"]
)
def test_an_effect_that_is_lost_done_twice_or_not_asked_for_is_found(
    change: dict[int, int],
) -> None:
    effects = Counter({index * BASE + step: 1 for index in range(8) for step in range(3)})
    load.check_effects(PLAN, effects)

    with pytest.raises(AssertionError, match="24 effects expected once each"):
        load.check_effects(PLAN, Counter({**effects, **change}) + Counter())


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
def test_the_exponent_of_a_growth_is_found(power: float) -> None:
    counts = (100, 300, 1_000)

    assert exponent(counts, [0.3 * count**power for count in counts]) == pytest.approx(power)
