"""From a seed to what goes wrong, in which order."""

import os
from random import Random

from tests.chaos.faults import FAULTS

SEED = "CHAOS_SEED"


def every_fault_once(random: Random) -> list[str]:
    plan = list(FAULTS)
    random.shuffle(plan)
    return plan


def seed_or(default: int) -> int:
    return int(os.environ.get(SEED) or default)
