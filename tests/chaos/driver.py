"""Plays a plan on a stage."""

import asyncio
from collections.abc import Awaitable, Sequence
from pathlib import Path
from random import Random

from tests.chaos.audit.evidence import Evidence
from tests.chaos.faults import FAULTS, Pace
from tests.chaos.stage import Stage

FAULT_SECONDS = 150.0
"""So long a fault and the recovery from it may take: no pace, only an end to hanging."""

BRIEF = Pace(brief=1.0, lasting=2.0)
LASTING = Pace(brief=6.0, lasting=40.0)

RUNS_BETWEEN = 3
"""So many runs end before the next fault: recovery is seen, not waited for."""


async def play(
    folder: Path,
    *plans: Sequence[str],
    seed: int,
    pace: Pace = BRIEF,
    workers: int = 2,
    may_mount: bool = True,
) -> Evidence:
    """Let runs come while one fault of each plan follows the other, several plans side by side.

    What is to be audited afterwards.
    """
    async with Stage(folder, Random(seed), workers=workers, may_mount=may_mount) as stage:
        async with stage.load.running():
            await _recovered(stage, "start")
            await asyncio.gather(*(_perform(stage, plan, pace) for plan in plans))
            await _within(stage, stage.load.settled(), "the last runs did not end")
        return await stage.finish()


async def _perform(stage: Stage, plan: Sequence[str], pace: Pace) -> None:
    for name in plan:
        async with asyncio.timeout(FAULT_SECONDS):
            await FAULTS[name](stage, pace)
        await _recovered(stage, name)


async def _recovered(stage: Stage, after: str) -> None:
    ending = stage.load.more_ended(RUNS_BETWEEN)
    await _within(stage, ending, f"no run ended any more after {after}")


async def _within(stage: Stage, work: Awaitable[None], complaint: str) -> None:
    try:
        async with asyncio.timeout(FAULT_SECONDS):
            await work
    except TimeoutError:
        raise AssertionError(f"{complaint}; open are: {stage.load.open_runs()}") from None
