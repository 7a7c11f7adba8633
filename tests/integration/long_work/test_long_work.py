"""Steps and turns of four times the broker's limit, each in a process of its own, at one time."""

import asyncio
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from durable_worker.transports.base import Delivery, Envelope
from durable_worker.transports.rabbitmq import RabbitTransport
from tests.broker import BrokerNode
from tests.conformance.transports.inbox import Inbox
from tests.integration.long_work.house import BROKER_LIMIT, SETTINGS, WORK, House
from tests.integration.rabbitmq.proxy import Proxy

pytestmark = pytest.mark.broker

ONCE = {"start": 1, "end": 1}


@dataclass
class Story:
    """What the scenarios, which run beside each other, have seen."""

    house: House
    outcomes: dict[str, Any] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with (
        BrokerNode(settings=SETTINGS) as node,
        House(node, tmp_path_factory.mktemp("long-work")) as house,
    ):
        told = Story(house)
        asyncio.run(_live_through(told))
        yield told


async def _live_through(story: Story) -> None:
    house = story.house
    house.worker("steady")
    house.worker("narrow", "--concurrency", "1")
    async with asyncio.TaskGroup() as group:
        for workflow, seconds in (
            ("long.steps", WORK),
            ("long.turn", WORK),
            ("long.queue", 2 * BROKER_LIMIT),
        ):
            group.create_task(_run(story, workflow, seconds))
        group.create_task(_lose_a_worker(story))
        group.create_task(_lose_a_connection(story))
        group.create_task(_do_not_renew(story))


async def _run(story: Story, workflow: str, seconds: float) -> None:
    run_id = workflow.partition(".")[2]
    story.outcomes[run_id] = await story.house.outcome(workflow, seconds, run_id=run_id)


async def _lose_a_worker(story: Story) -> None:
    house = story.house
    first = house.worker("mortal")
    async with asyncio.TaskGroup() as group:
        group.create_task(_run(story, "long.inheritance", WORK / 2))
        started = await house.entry("start", "inheritance")
        house.worker("mortal")
        await asyncio.sleep(2 * BROKER_LIMIT - 2)
        assert started.pid == first.pid
        first.send_signal(signal.SIGKILL)
        killed_at = asyncio.get_running_loop().time()
        await house.entry("start", "inheritance", nth=2)
        story.times["takeover"] = asyncio.get_running_loop().time() - killed_at


async def _lose_a_connection(story: Story) -> None:
    house = story.house
    async with Proxy(house.node.url()) as proxy, asyncio.TaskGroup() as group:
        house.worker("connected", url=proxy.url)
        running = group.create_task(_run(story, "long.connection", WORK))
        await house.entry("start", "connection")
        rival = house.worker("connected")
        for _ in range(3):
            await asyncio.sleep(BROKER_LIMIT * 0.8)
            proxy.cut()
        await running
        assert story.outcomes["connection"] != rival.pid
        story.outcomes["cuts"] = house.said("worker-connected").count('"disconnected"')


async def _do_not_renew(story: Story) -> None:
    names = story.house.names
    queue = names.tasks("nobody-renews")
    one, two = Inbox[Delivery](), Inbox[Delivery]()
    async with (
        RabbitTransport(story.house.node.url(), names=names) as holder,
        RabbitTransport(story.house.node.url(), names=names) as other,
    ):
        await holder.consume([queue], one, prefetch=1)
        await holder.send(queue, Envelope("step-task", b"{}", message_id="m"))
        await one.next()
        taken_at = asyncio.get_running_loop().time()
        await other.consume([queue], two, prefetch=1)
        while not len(one) and not len(two):  # noqa: ASYNC110 - either may get it
            await asyncio.sleep(0.05)
        story.times["taken back"] = asyncio.get_running_loop().time() - taken_at
        again = await (one if len(one) else two).next()
        story.outcomes["not renewed"] = again.delivery_count
        await again.ack()


def test_without_renewals_the_broker_gives_the_message_to_somebody_else(story: Story) -> None:
    assert story.outcomes["not renewed"] == 1
    assert BROKER_LIMIT <= story.times["taken back"] < WORK


def test_steps_that_take_four_times_as_long_run_exactly_once(story: Story) -> None:
    assert story.outcomes["steps"] == [WORK, WORK]
    assert story.house.counts("steps") == {"start": 2, "end": 2}


def test_a_turn_with_a_local_step_that_takes_as_long_runs_exactly_once(story: Story) -> None:
    assert story.outcomes["turn"] == WORK
    assert story.house.counts("turn") == ONCE


def test_a_step_that_waits_longer_for_its_slot_runs_exactly_once(story: Story) -> None:
    assert story.outcomes["queue"] == [2 * BROKER_LIMIT] * 2
    assert story.house.counts("queue") == {"start": 2, "end": 2}
    (first, *_), ends = (
        story.house.entries("queue"),
        [entry.at for entry in story.house.entries("queue") if entry.what == "end"],
    )
    assert max(ends) - first.at >= 4 * BROKER_LIMIT


def test_a_step_whose_worker_is_killed_goes_to_another_one_at_once(story: Story) -> None:
    (killed, heir) = [
        each.pid for each in story.house.entries("inheritance") if each.what == "start"
    ]
    assert story.outcomes["inheritance"] == heir != killed
    assert story.house.counts("inheritance") == {"start": 2, "end": 1}
    assert story.times["takeover"] < BROKER_LIMIT


def test_a_step_whose_worker_loses_its_connection_again_and_again_runs_exactly_once(
    story: Story,
) -> None:
    assert story.house.counts("connection") == ONCE
    assert story.outcomes["connection"] == story.house.entries("connection")[0].pid
    assert story.outcomes["cuts"] == 3


def test_afterwards_nothing_is_left(story: Story) -> None:
    """Last in this file: it ends the processes."""
    assert set(story.house.stop_all()) == {0}
    assert story.house.messages_at_last() == {}
    held = [name for name in story.house.queues() if "-held-" in name]
    # Those of the killed worker and of the one that was disconnected expire by themselves.
    assert len(held) == 2
