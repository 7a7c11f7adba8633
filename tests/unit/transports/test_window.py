"""However messages are moved and answered, no more are out than may be, and none is kept away."""

import asyncio
from collections import Counter
from random import Random

import pytest

from durable_worker.transports.rabbitmq.window import Window


class Broker:
    """What a broker does with one consumer at a time: fill it up after each acknowledgement."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.due = False
        self.has_become_due = asyncio.Event()
        self.unacked = Counter[int]()  # as the broker sees it, by turn
        self.unmoved: list[int] = []  # turns of the messages that can be moved
        self.moved = 0
        self.prefetch = 0
        self.most = 0
        window.on_due(self._note_due)
        self.consume()

    def _note_due(self) -> None:
        self.due = True
        self.has_become_due.set()

    def consume(self) -> None:
        self.prefetch = self.window.room
        if self.prefetch:
            self.window.granted(self.prefetch)
        self.deliver()

    def deliver(self) -> None:
        while self.unacked[self.window.turn] < self.prefetch:
            self.unacked[self.window.turn] += 1
            self.unmoved.append(self.window.took())
        self.most = max(self.most, len(self.unmoved) + self.moved)

    def turn_if_due(self) -> None:
        self.due = False
        if self.window.is_turn_due:
            self.prefetch = 0
            self.window.end_turn()
            self.consume()

    async def move(self, turn: int) -> None:
        self.unmoved.remove(turn)
        self.moved += 1
        await self.window.movable(turn)
        self.acknowledge(turn)

    def answer_unmoved(self, turn: int) -> None:
        self.unmoved.remove(turn)
        self.window.left(turn)
        self.acknowledge(turn)

    def acknowledge(self, turn: int) -> None:
        self.unacked[turn] -= 1
        self.deliver()

    def answer_moved(self) -> None:
        self.moved -= 1
        self.window.ended()


@pytest.mark.parametrize("seed", range(40))
async def test_never_more_than_the_size_is_out_and_in_the_end_all_of_it_is(seed: int) -> None:
    random = Random(seed)
    size = random.choice([1, 2, 5, 30])
    broker = Broker(Window(size))
    async with asyncio.TaskGroup() as group:
        for _ in range(400):
            what = random.random()
            if what < 0.3 and broker.unmoved:
                group.create_task(broker.move(random.choice(broker.unmoved)))
            elif what < 0.6 and broker.unmoved:
                broker.answer_unmoved(random.choice(broker.unmoved))
            elif what < 0.8 and broker.moved:
                broker.answer_moved()
            await asyncio.sleep(0)
            if broker.due and random.random() < 0.5:
                broker.turn_if_due()
                await asyncio.sleep(0)
        broker.turn_if_due()
    assert broker.most == size
    broker.turn_if_due()
    assert len(broker.unmoved) + broker.moved == size


async def test_a_message_of_an_earlier_consumer_moves_at_once() -> None:
    broker = Broker(Window(3))
    first = asyncio.ensure_future(broker.move(0))
    await asyncio.sleep(0)
    assert not first.done()
    broker.turn_if_due()
    await first
    async with asyncio.timeout(1):
        await broker.move(0)


async def test_a_little_room_waits_a_moment_and_much_of_it_is_taken_at_once() -> None:
    broker = Broker(Window(40))
    moves = [asyncio.ensure_future(broker.move(0)) for _ in range(40)]
    await asyncio.sleep(0)
    broker.turn_if_due()
    await asyncio.gather(*moves)
    broker.answer_moved()
    assert not broker.due
    broker.has_become_due.clear()
    async with asyncio.timeout(5):
        await broker.has_become_due.wait()
    broker.turn_if_due()
    for _ in range(9):
        broker.answer_moved()
    assert not broker.due
    broker.answer_moved()
    assert broker.due
