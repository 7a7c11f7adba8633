"""Work that takes longer than the broker lets a message be unanswered, under a NestJS operator."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker import BrokerNode, new_prefix
from tests.interop.control import until
from tests.interop.journal import read_journal
from tests.interop.processes import House, Process

pytestmark = pytest.mark.broker

BROKER_LIMIT = 10
"""Seconds."""

SETTINGS = {"consumer_timeout": str(BROKER_LIMIT * 1000), "channel_tick_interval": "1000"}
LONG = {"seconds": 4 * BROKER_LIMIT, "beat_every": 1}
LOST = {"seconds": 2 * BROKER_LIMIT, "beat_every": 1}


@pytest.fixture
def houses(operator_main: Path, tmp_path: Path) -> Iterator[tuple[House, House]]:
    """Two, on a broker that takes messages back after ten seconds."""
    folders = tmp_path / "one", tmp_path / "other"
    for folder in folders:
        folder.mkdir()
    with (
        BrokerNode(settings=SETTINGS) as node,
        House(operator_main, node.url(), new_prefix(), folders[0]) as one,
        House(operator_main, node.url(), new_prefix(), folders[1]) as other,
    ):
        yield one, other


def starts(house: House, run_id: str) -> list[int]:
    """The processes in which steps of the run began."""
    entries = read_journal(house.journal)
    return [e.pid for e in entries if e.what == "start" and e.attempt.startswith(f"{run_id}:")]


def wait_for_start(house: House, run_id: str, *, nth: int = 1, seconds: float = 20) -> None:
    until(
        lambda: len(starts(house, run_id)) >= nth or None,
        lambda: f"{run_id} started {len(starts(house, run_id))} times",
        seconds=seconds,
    )


def test_long_steps_and_turns_run_once_and_those_of_a_killed_worker_go_to_another_at_once(
    houses: tuple[House, House],
) -> None:
    steady, deadly = houses
    # A turn that says nothing for longer than the broker waits must not be sent anew meanwhile.
    control = steady.start_operator(SILENCE_MS="20000")
    steady.start_worker()
    other = deadly.start_operator(SILENCE_MS="20000")
    first: Process = deadly.start_worker()
    control.wait_for_groups("py.slow", "py.long-turn")
    other.wait_for_groups("py.slow")

    step = control.one_step("py.slow", LONG)
    turn = control.start("py.long-turn", LONG)
    lost = other.one_step("py.slow", LOST)
    wait_for_start(deadly, lost)
    deadly.start_worker()
    time.sleep(1.5 * BROKER_LIMIT)
    first.kill()
    wait_for_start(deadly, lost, nth=2, seconds=BROKER_LIMIT)

    assert other.outcome(lost, seconds=60).output == 1
    assert len(set(starts(deadly, lost))) == 2
    assert control.outcome(step, seconds=60).output == 1
    assert control.outcome(turn, seconds=60).output == 1
    assert len(starts(steady, step)) == len(starts(steady, turn)) == 1
    assert steady.operator.is_alive
