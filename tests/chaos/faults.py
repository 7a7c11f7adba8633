"""What can go wrong: each function brings one trouble over the stage and takes it away again."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.chaos.fleet import Member
from tests.chaos.network import Direction
from tests.chaos.shuffle import shuffle
from tests.chaos.stage import Stage

HOUR = 3600.0
REGISTRY_SECONDS = 5.0


@dataclass(frozen=True)
class Pace:
    """How long troubles last, in seconds: `brief` ones that nobody gives up on, `lasting` ones
    that make others give up (a silent connection after 33 s, a lease after 15 s)."""

    brief: float
    lasting: float


async def kill_worker(stage: Stage, pace: Pace) -> None:
    member = stage.any_of("worker")
    async with stage.fault("kill", member):
        member.signal(signal.SIGKILL)


async def kill_operator(stage: Stage, pace: Pace) -> None:
    member = await stage.lease_holder()
    async with stage.fault("kill", member):
        member.signal(signal.SIGKILL)


async def kill_everybody(stage: Stage, pace: Pace) -> None:
    members = [each for each in stage.fleet.members if each.is_wanted]
    async with stage.fault("kill", *members):
        for member in members:
            member.signal(signal.SIGKILL)


async def stop_worker(stage: Stage, pace: Pace) -> None:
    await _pause(stage, stage.any_of("worker"), pace.brief)


async def stop_operator(stage: Stage, pace: Pace) -> None:
    """At a lasting pace another takes the lease meanwhile: then two believe to hold it."""
    await _pause(stage, await stage.lease_holder(), pace.lasting)


async def _pause(stage: Stage, member: Member, seconds: float) -> None:
    async with stage.fault("stop", member):
        pid = member.signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        if pid == member.pid:
            member.signal(signal.SIGCONT)


async def cut_connection(stage: Stage, pace: Pace) -> None:
    member = stage.anybody()
    assert member.network is not None
    async with stage.fault("cut", member):
        member.network.cut()


async def cut_inside_a_frame(stage: Stage, pace: Pace) -> None:
    member = stage.anybody()
    assert member.network is not None
    network = member.network
    direction = stage.random.choice((network.to_broker, network.from_broker))
    async with stage.fault("cut inside a frame", member):
        direction.is_cut_inside_next_frame = True
        while direction.is_cut_inside_next_frame:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def silence(stage: Stage, pace: Pace) -> None:
    """One way only: nothing arrives any more, nobody is told."""
    member = stage.anybody()
    assert member.network is not None
    network = member.network
    direction: Direction = stage.random.choice((network.to_broker, network.from_broker))
    async with stage.fault("silence", member):
        direction.fall_silent()
        await asyncio.sleep(pace.lasting)
        direction.speak()


async def latency(stage: Stage, pace: Pace) -> None:
    member = stage.anybody()
    assert member.network is not None
    async with stage.fault("latency", member):
        for each in (member.network.to_broker, member.network.from_broker):
            each.latency = stage.random.uniform(0.1, 0.5)
        await asyncio.sleep(pace.brief)
        for each in (member.network.to_broker, member.network.from_broker):
            each.latency = 0.0


async def restart_broker(stage: Stage, pace: Pace) -> None:
    async with stage.broker_lock, stage.fault("broker stopped", broker=True):
        await asyncio.to_thread(stage.node.stop)
        await asyncio.to_thread(stage.node.start)


async def kill_broker(stage: Stage, pace: Pace) -> None:
    """Not just after a queue was deleted: RabbitMQ 3.10 keeps the registry of queues in a file that
    it writes now and then, and knows nothing of a queue that was declared anew if killed before."""
    await asyncio.sleep(max(0.0, stage.deleted_at + REGISTRY_SECONDS - time.monotonic()))
    async with stage.broker_lock, stage.fault("broker killed", broker=True):
        await asyncio.to_thread(stage.node.kill)
        await asyncio.to_thread(stage.node.start)


async def block_publishers(stage: Stage, pace: Pace) -> None:
    """The memory alarm: the broker stops reading from whoever publishes.

    As `rabbitmqctl set_vm_memory_high_watermark`, twice, but without two starts of Erlang.
    """
    milliseconds = int(pace.brief * 1000)
    async with stage.broker_lock, stage.fault("blocked", broker=True):
        await stage.ctl(
            "eval",
            "vm_memory_monitor:set_vm_memory_high_watermark(0.00001), "
            f"timer:sleep({milliseconds}), "
            "vm_memory_monitor:set_vm_memory_high_watermark(0.4).",
        )


async def delete_queue(stage: Stage, pace: Pace) -> None:
    """With nothing in it: what lies in a queue that is deleted is lost, to anybody.

    The operators wait until the workers are back. RabbitMQ 3.10 can lose track of a consumer whose
    queue is declared anew in the moment of its deletion: it counts, and gets nothing.
    """
    queue = stage.names.tasks("chaos.work")
    networks = [each.network for each in stage.fleet.of("worker") if each.network is not None]
    operators = stage.fleet.of("operator")
    async with stage.broker_lock, stage.fault("queue deleted", *operators, broker=True):
        for each in operators:
            each.signal(signal.SIGSTOP)  # they are who publishes to it
        try:
            await stage.emptied(queue)
            for network in networks:
                network.forget_consumers_of(queue)
            await stage.delete_queue(queue)
            while not all(each.consumers_of(queue) for each in networks):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        finally:
            for each in operators:
                each.signal(signal.SIGCONT)


async def cancel_consumers(stage: Stage, pace: Pace) -> None:
    """The broker sends `basic.cancel` for a queue that stays."""
    await _end_consumers(stage, is_told=True)


async def forget_consumers(stage: Stage, pace: Pace) -> None:
    """The same, and nobody is told."""
    await _end_consumers(stage, is_told=False)


async def _end_consumers(stage: Stage, *, is_told: bool) -> None:
    """Of one member or of all with this role."""
    names = stage.names
    role = stage.random.choice(("worker", "operator"))
    queue = names.tasks("chaos.thread") if role == "worker" else names.results
    members = stage.fleet.of(role)
    if role == "worker" and stage.random.random() < 0.5:
        members = members[:1]
    async with stage.fault("consumers ended", *members, broker=True):
        ended = 0
        while not ended:  # they may be about to come back from something else
            networks = [each.network for each in members if each.network is not None]
            ended = sum(each.end_consumers(queue, is_told=is_told) for each in networks)
            await asyncio.sleep(0.1)


async def fill_disk(stage: Stage, pace: Pace) -> None:
    """Until an operator has felt it, and a little longer."""
    operators = stage.fleet.of("operator")
    pids = [pid for each in operators if (pid := each.pid) is not None]
    async with stage.fault("disk full", *operators):
        stage.disk.fill(pids)
        try:
            await stage.fleet.one_says(operators, "store_write_failed", "lease_not_renewed")
            await asyncio.sleep(pace.brief)
        finally:
            stage.disk.free(pids)


async def clock_ahead(stage: Stage, pace: Pace) -> None:
    """The operators' machine is set an hour forward, for good: timers are early, leases run out."""
    operators = stage.fleet.of("operator")
    async with stage.fault("clock", *operators):
        stage.operators_ahead += HOUR
        for each in operators:
            each.set_clock(ahead_seconds=stage.operators_ahead)
        await asyncio.sleep(pace.brief)


async def clock_back(stage: Stage, pace: Pace) -> None:
    """An hour back, and then right again: until then no timer is due."""
    member = stage.anybody()
    async with stage.fault("clock", member):
        member.set_clock(ahead_seconds=stage.ahead_of_us(member) - HOUR)
        await asyncio.sleep(pace.brief)
        member.set_clock(ahead_seconds=stage.ahead_of_us(member))


async def clock_of_a_worker(stage: Stage, pace: Pace) -> None:
    member = stage.any_of("worker")
    async with stage.fault("clock", member):
        member.set_clock(ahead_seconds=stage.random.choice((HOUR, -HOUR)))


async def two_lease_holders(stage: Stage, pace: Pace) -> None:
    """The holder stands still while its lease runs out by the clock of the other, then goes on."""
    holder = await stage.lease_holder()
    operators = stage.fleet.of("operator")
    async with stage.fault("clock", *operators):
        pid = holder.signal(signal.SIGSTOP)
        stage.operators_ahead += HOUR
        for each in operators:
            each.set_clock(ahead_seconds=stage.operators_ahead)
        while (await stage.lease_holder()).pid == pid:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        await asyncio.sleep(pace.brief)  # the other one operates
        holder.signal(signal.SIGCONT)


async def repeat_and_reorder(stage: Stage, pace: Pace) -> None:
    names = stage.names
    queue = stage.random.choice(
        (names.results, names.decisions, names.tasks("chaos.work"), names.tasks("chaos.sequence"))
    )
    async with stage.broker_lock, stage.fault("repeated", broker=True) as fault:
        fault.messages, fault.runs = await shuffle(
            stage.node.url(), queue, stage.random, count=6, patience=pace.lasting
        )


FAULTS: dict[str, Callable[[Stage, Pace], Awaitable[None]]] = {
    each.__name__: each
    for each in (
        kill_worker,
        kill_operator,
        kill_everybody,
        stop_worker,
        stop_operator,
        cut_connection,
        cut_inside_a_frame,
        silence,
        latency,
        restart_broker,
        kill_broker,
        block_publishers,
        delete_queue,
        cancel_consumers,
        forget_consumers,
        fill_disk,
        clock_ahead,
        clock_back,
        clock_of_a_worker,
        two_lease_holders,
        repeat_and_reorder,
    )
}
