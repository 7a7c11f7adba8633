"""From a seed to what goes wrong, in which order."""

import os
from random import Random

from tests.chaos.faults import FAULTS

SEED = "CHAOS_SEED"

SELECTION = (
    "kill_worker",
    "kill_operator",
    "stop_worker",
    "cut_inside_a_frame",
    "silence",
    "kill_broker",
    "block_publishers",
    "cancel_consumers",
    "fill_disk",
    "clock_back",
    "two_lease_holders",
    "repeat_and_reorder",
)
"""One fault of every family: what a minute has room for."""


def selected(random: Random) -> list[str]:
    return random.sample(SELECTION, len(SELECTION))


def every_fault_once(random: Random) -> list[str]:
    return random.sample(sorted(FAULTS), len(FAULTS))


def seed_or(default: int) -> int:
    return int(os.environ.get(SEED) or default)
