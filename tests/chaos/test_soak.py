"""Every fault, in every order and side by side, for as long as `CHAOS_MINUTES` says.

Each seed is a stage of its own: another order of faults, one or two at a time, brief or lasting.
"""

import os
import time
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from tests.chaos.audit.evidence import Evidence
from tests.chaos.audit.rules import audit
from tests.chaos.driver import BRIEF, LASTING, play
from tests.chaos.plan import every_fault_once, seed_or

MINUTES = "CHAOS_MINUTES"

MOST_MINUTES = float(os.environ.get(MINUTES) or 10)
LAST_SEED_SECONDS = 1_800
"""One is begun until the time is over, and then played to its end."""

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(60 * MOST_MINUTES + LAST_SEED_SECONDS)]


async def test_no_order_of_faults_loses_a_run_or_records_an_effect_twice(tmp_path: Path) -> None:
    until = time.monotonic() + 60 * MOST_MINUTES
    seed = seed_or(Random().randrange(1, 2**31))
    while True:
        folder = tmp_path / str(seed)
        folder.mkdir()
        violations = await _seed(folder, seed)
        assert violations == [], f"CHAOS_SEED={seed} repeats the plan"
        if time.monotonic() > until:
            return
        seed += 1


async def _seed(folder: Path, seed: int) -> list[str]:
    random = Random(seed)
    plans = [every_fault_once(random) for _ in range(random.choice((1, 2)))]
    pace = random.choice((BRIEF, BRIEF, LASTING))
    workers = random.choice((2, 3))
    may_mount = random.random() < 0.7
    began = time.monotonic()
    print(f"\nCHAOS_SEED={seed} {'lasting' if pace is LASTING else 'brief'}, {workers} workers")
    for plan in plans:
        print(f"  {', '.join(plan)}", flush=True)
    evidence = await play(
        folder, *plans, seed=seed, pace=pace, workers=workers, may_mount=may_mount
    )
    violations = audit(evidence)
    print(f"  {_summary(evidence)} in {time.monotonic() - began:.0f} s", flush=True)
    return violations


def _summary(evidence: Evidence) -> str:
    starts = Counter((each.step, each.attempt) for each in evidence.journal if each.what == "start")
    repeated = sum(count > 1 for count in starts.values())
    return (
        f"{len(evidence.runs)} runs, {len(starts)} attempts at steps, {repeated} of them more than "
        f"once, {len(evidence.faults)} faults, {len(evidence.lives)} processes"
    )
