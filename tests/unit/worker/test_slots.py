"""Never more than there is room for, in the order in which they came, and no slot is lost."""

import asyncio
from random import Random

import pytest

from durable_worker.worker.slots import Slots

pytestmark = pytest.mark.anyio


class Stay:
    """Somebody who takes a slot and keeps it until told to leave."""

    def __init__(self, slots: Slots, inside: "list[Stay]") -> None:
        self._slots = slots
        self._inside = inside
        self.leave = asyncio.Event()
        self.task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        await self._slots.take()
        self._inside.append(self)
        try:
            await self.leave.wait()
        finally:
            self._inside.remove(self)
            self._slots.leave()


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_who_comes_first_is_in_first() -> None:
    slots, inside = Slots(2), list[Stay]()
    assert not slots.are_taken
    stays = [Stay(slots, inside) for _ in range(5)]
    await settled()
    assert (inside, slots.are_taken) == (stays[:2], True)
    for number in range(3):
        stays[number].leave.set()
        await settled()
        assert inside == stays[number + 1 : number + 3]
    for each in stays[3:]:
        each.leave.set()
    await settled()
    assert (inside, slots.are_taken) == ([], False)


@pytest.mark.parametrize("is_handed_over", [False, True])
async def test_a_slot_of_who_is_cancelled_while_waiting_goes_to_the_next(
    is_handed_over: bool,
) -> None:
    slots, inside = Slots(1), list[Stay]()
    first, cancelled, last = (Stay(slots, inside) for _ in range(3))
    await settled()
    if is_handed_over:
        slots.leave()  # the second one has it, but has not run since
    cancelled.task.cancel()
    await settled()
    assert inside == ([first, last] if is_handed_over else [first])
    first.leave.set()
    last.leave.set()
    await settled()
    assert (inside, slots.are_taken) == ([], False)


@pytest.mark.parametrize("seed", range(50))
async def test_whatever_happens_there_is_room_for_exactly_as_many_again(seed: int) -> None:
    random, slots, inside = Random(seed), Slots(3), list[Stay]()
    stays: list[Stay] = []
    for _ in range(60):
        match random.randrange(4):
            case 0 | 1:
                stays.append(Stay(slots, inside))
            case 2 if stays:
                random.choice(stays).leave.set()
            case _ if stays:
                random.choice(stays).task.cancel()
        if random.random() < 0.7:
            await asyncio.sleep(0)
        assert len(inside) <= 3
    for each in stays:
        each.leave.set()
    await asyncio.wait([each.task for each in stays])
    assert inside == []
    again = [Stay(slots, inside) for _ in range(4)]
    await settled()
    assert inside == again[:3]
    for each in again:
        each.leave.set()
    await settled()
