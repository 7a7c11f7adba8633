"""Work that takes longer than the broker lets a message be unanswered, under a NestJS operator."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from anyio.to_thread import run_sync

from durable_worker.protocol.names import Names
from tests.broker import BrokerNode, new_prefix
from tests.interop.control import until
from tests.interop.journal import read_journal
from tests.interop.peer import Peer
from tests.interop.processes import House, Process

pytestmark = [pytest.mark.anyio, pytest.mark.broker]

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


async def test_a_step_that_a_worker_gave_up_for_its_many_deliveries_gets_a_second_chance(
    house: House,
) -> None:
    """The worker counts over copies, and says so to the operator as the broker would."""
    control = await run_sync(house.start_operator)
    names = Names(prefix=house.prefix)
    queue = names.tasks("py.add")
    async with Peer(house.url, names) as peer:
        run_id = await run_sync(control.one_step, "py.add", {"a": 2, "b": 3})
        task = await peer.take(queue)
        counted = {"durable-deliveries": "11", "durable-held": "durable-held-x:1"}
        await peer.send(
            queue, "step-task", task.body, message_id=task.message_id or "", headers=counted
        )

        await run_sync(house.start_worker)

        assert await run_sync(control.output, run_id) == 5
    said = json.loads(house.operator.logged("message_sent_again"))
    assert (said["queue"], said["times"]) == (queue, 1)
