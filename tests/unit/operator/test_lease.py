"""Who may write, when clocks are wrong."""

import asyncio
from datetime import timedelta
from typing import cast

import pytest

from durable_worker.errors import LeaseLostError, StoreUnavailableError
from durable_worker.operator.lease import UNRENEWED_SECONDS, LeaseKeeper, Tenure
from durable_worker.operator.options import OperatorOptions
from durable_worker.stores.base import Lease, LeaseHolder, Owner, SharedStore
from durable_worker.stores.memory import MemoryStore
from durable_worker.stores.processes import this_process

HOUR_MS = 3_600_000


class SteppedClock:
    """Time passes when somebody sleeps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> int:
        return int(self.seconds * 1000)

    def monotonic(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        await asyncio.sleep(0)


def keeper(store: MemoryStore, name: str, clock: SteppedClock) -> LeaseKeeper:
    options = OperatorOptions(lease_ttl=timedelta(seconds=15))
    return LeaseKeeper(store, this_process(name), options=options, clock=clock)


async def test_a_lease_of_a_clock_that_was_an_hour_ahead_is_not_waited_for() -> None:
    store, clock = MemoryStore(), SteppedClock()
    gone = await store.acquire_lease(this_process("gone"), now=HOUR_MS, ttl=15_000)
    assert isinstance(gone, Lease)
    lease = await keeper(store, "next", clock).acquire()
    assert (lease.token, lease.is_takeover) == (gone.token + 1, True)
    assert UNRENEWED_SECONDS < clock.seconds < UNRENEWED_SECONDS + 2
    # From now on it ends when the clock of its new holder says so.
    await store.renew_lease(lease.token, now=clock.now(), ttl=15_000)
    other = await store.acquire_lease(this_process("other"), now=clock.now() + 15_001, ttl=1)
    assert isinstance(other, Lease)


async def test_a_lease_that_is_renewed_is_waited_for_however_far_ahead_its_clock_is() -> None:
    store, clock = MemoryStore(), SteppedClock()
    held = await store.acquire_lease(this_process("alive"), now=HOUR_MS, ttl=15_000)
    assert isinstance(held, Lease)
    waiting = asyncio.ensure_future(keeper(store, "next", clock).acquire())
    while clock.seconds < 4 * UNRENEWED_SECONDS:
        await store.renew_lease(held.token, now=HOUR_MS + clock.now(), ttl=15_000)
        assert not waiting.done()
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])


async def held_by(name: str, store: MemoryStore, clock: SteppedClock) -> Tenure:
    asking = keeper(store, name, clock)
    lease = await asking.acquire()
    options = OperatorOptions(lease_ttl=timedelta(seconds=15))
    return Tenure(
        store, this_process(name), lease, since=asking.asked_at, options=options, clock=clock
    )


async def test_a_holder_is_sure_of_its_lease_for_half_of_the_time_since_it_asked_for_it() -> None:
    store, clock = MemoryStore(), SteppedClock()
    tenure = await held_by("alive", store, clock)
    assert tenure.is_sure()
    clock.seconds += 7.4
    assert tenure.is_sure()
    clock.seconds += 0.2
    assert not tenure.is_sure()
    keeping = asyncio.ensure_future(tenure.keep())
    for _ in range(3):
        await asyncio.sleep(0)
    assert tenure.is_sure()
    keeping.cancel()
    await asyncio.wait([keeping])


async def test_a_holder_whose_lease_is_lost_is_not_sure_of_it() -> None:
    store, clock = MemoryStore(), SteppedClock()
    tenure = await held_by("stopped", store, clock)
    clock.seconds += 16
    taken = await store.acquire_lease(this_process("next"), now=clock.now(), ttl=15_000)
    assert isinstance(taken, Lease)
    with pytest.raises(LeaseLostError):
        await tenure.keep()
    assert not tenure.is_sure()


class SlowMembership(MemoryStore):
    """Answers no question within the time that anybody waits, until it has been asked `times`."""

    def __init__(self, clock: SteppedClock, *, times: int) -> None:
        super().__init__()
        self._clock = clock
        self._left = times

    async def join(self, owner: Owner, *, now: int, ttl: int) -> Lease | LeaseHolder:
        if not self._left:
            return Lease(token=7, is_takeover=False)
        self._left -= 1
        self._clock.seconds += 40
        raise StoreUnavailableError("the database did not answer in time")


def member_of(store: SlowMembership, clock: SteppedClock) -> Tenure:
    return Tenure(
        store,
        this_process("member"),
        Lease(token=1, is_takeover=False),
        since=0,
        options=OperatorOptions(store_patience=timedelta(seconds=30)),
        clock=clock,
        shared=cast("SharedStore", store),
    )


async def test_a_member_that_stood_still_while_it_asked_asks_again_before_it_gives_up() -> None:
    clock = SteppedClock()
    tenure = member_of(SlowMembership(clock, times=1), clock)
    assert await tenure.regain(1)
    assert tenure.token == 7


async def test_a_member_that_gets_no_answer_for_too_long_gives_up() -> None:
    clock = SteppedClock()
    tenure = member_of(SlowMembership(clock, times=2), clock)
    with pytest.raises(StoreUnavailableError):
        await tenure.regain(1)
