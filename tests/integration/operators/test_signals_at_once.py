"""What two operators do to signals at the same moment, and a proof that the check of it is needed:
without any part of it, a signal is lost or counts twice."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from msgspec import Raw

from durable_worker.clock import SystemClock
from durable_worker.operator.context import WorkContext
from durable_worker.operator.engine import Engine
from durable_worker.operator.lease import Tenure
from durable_worker.operator.ledgers import Ledgers
from durable_worker.operator.options import OperatorOptions
from durable_worker.operator.transitions.effects import Limits
from durable_worker.protocol.commands import DecisionStatus, WaitSignal, WorkflowDecision
from durable_worker.protocol.names import Names
from durable_worker.stores.address import PostgresAddress
from durable_worker.stores.base import Batch, Lease, Owner
from durable_worker.stores.inputs import AnyInput, DecisionReceived, SignalSent, StartRun
from durable_worker.stores.postgres import PostgresStore, writing
from durable_worker.stores.records import Checkpoint, turn_id
from tests.conformance.stores.samples import ME
from tests.integration.operators.test_shared_store import OTHER

pytestmark = pytest.mark.anyio

TOGETHER_SECONDS = 0.5
OPTIONS = OperatorOptions()


class Meeting:
    """Whoever comes waits for the other, but not for long: that one may be waiting for a lock."""

    def __init__(self) -> None:
        self._barrier = asyncio.Barrier(2)

    async def __call__(self) -> None:
        with suppress(TimeoutError, asyncio.BrokenBarrierError):
            async with asyncio.timeout(TOGETHER_SECONDS):
                await self._barrier.wait()


class Meetings:
    """Both operators have read before either writes, and checked before either has written."""

    def __init__(self) -> None:
        self.before_checking = Meeting()
        self.before_writing = Meeting()
        self.are_on = False


class MeetingStore(PostgresStore):
    def __init__(self, address: PostgresAddress, meetings: Meetings, *, delay: float) -> None:
        super().__init__(address)
        self._meetings = meetings
        self._delay = delay

    async def commit(self, batch: Batch, token: int) -> None:
        if self._meetings.are_on:
            await self._meetings.before_checking()
            await asyncio.sleep(self._delay)
        await super().commit(batch, token)


class Pair:
    """Two operators, without a broker."""

    def __init__(self, stores: tuple[PostgresStore, PostgresStore], meetings: Meetings) -> None:
        self.store = stores[0]
        self._stores = stores
        self._meetings = meetings
        self._engines: list[Engine] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            for store, owner in zip(self._stores, (ME, OTHER), strict=True):
                engine = await engine_on(store, owner)
                self._engines.append(engine)
                group.create_task(engine.run())
            yield
            for engine in self._engines:
                engine.close()

    async def apply(self, *values: AnyInput) -> None:
        """One after the other, by the first."""
        for value in values:
            await self._engines[0].applied(value)

    async def at_once(self, late: AnyInput, *early: AnyInput) -> None:
        """By both: the first operator writes last. Neither has read what the other writes."""
        first, second = self._engines
        self._meetings.are_on = True
        await asyncio.gather(first.applied(late), *map(second.applied, early))
        self._meetings.are_on = False

    async def wait_at(self, run_id: str) -> Checkpoint:
        state = await self.store.load(run_id)
        assert state is not None
        return state.checkpoints[0]

    async def kept(self) -> list[str]:
        """The ids of signals that wait for a wait."""
        return [each.id for each in await self.store.buffered_signals("default", "go", limit=9)]


async def engine_on(store: PostgresStore, owner: Owner) -> Engine:
    clock = SystemClock()
    lease = await store.join(owner, now=clock.now(), ttl=60_000)
    assert isinstance(lease, Lease)
    ledgers = Ledgers(store, capacity=1_000)
    context = WorkContext(store, ledgers, Names(), Limits(), lambda *_: "1", True, store)
    tenure = Tenure(store, owner, lease, since=0.0, options=OPTIONS, clock=clock, shared=store)
    return Engine(context, tenure=tenure, options=OPTIONS, clock=clock, aftermath=lambda _: None)


def start(run_id: str) -> StartRun:
    return StartRun(run_id=run_id, workflow="w")


def wait(run_id: str) -> DecisionReceived:
    """The first turn asks for the signal."""
    decision = WorkflowDecision(
        task_id=turn_id(run_id, 1),
        run_id=run_id,
        status=DecisionStatus.CONTINUE,
        commands=[WaitSignal(seq=0, signal="go")],
    )
    return DecisionReceived(run_id=run_id, decision=decision)


def signal(signal_id: str) -> SignalSent:
    return SignalSent(signal_id=signal_id, name="go", payload=Raw(f'"{signal_id}"'.encode()))


Law = Callable[[Pair], Awaitable[bool]]


async def a_wait_finds_the_signal_that_comes_meanwhile(pair: Pair) -> bool:
    await pair.apply(start("a"))
    await pair.at_once(wait("a"), signal("s"))
    return not (await pair.wait_at("a")).is_pending and not await pair.kept()


async def a_signal_finds_the_wait_that_begins_meanwhile(pair: Pair) -> bool:
    await pair.apply(start("a"))
    await pair.at_once(signal("s"), wait("a"))
    return not (await pair.wait_at("a")).is_pending and not await pair.kept()


async def a_signal_that_comes_twice_counts_once(pair: Pair) -> bool:
    await pair.apply(start("a"))
    await pair.at_once(signal("s"), wait("a"), signal("s"))
    return not (await pair.wait_at("a")).is_pending and not await pair.kept()


async def a_signal_that_was_kept_is_taken_by_one_wait(pair: Pair) -> bool:
    await pair.apply(start("a"), start("b"), signal("s"))
    await pair.at_once(wait("a"), wait("b"))
    waits = [await pair.wait_at(each) for each in ("a", "b")]
    return sorted(each.is_pending for each in waits) == [False, True] and not await pair.kept()


async def of_two_signals_for_one_wait_one_is_kept(pair: Pair) -> bool:
    await pair.apply(start("a"), wait("a"))
    await pair.at_once(signal("s"), signal("t"))
    taken = bytes((await pair.wait_at("a")).output).decode().strip('"')  # type: ignore[arg-type]
    return sorted([taken, *await pair.kept()]) == ["s", "t"]


async def a_signal_is_kept_beside_a_wait_for_which_another_has_come(pair: Pair) -> bool:
    await pair.apply(start("a"), start("b"), signal("s"))
    await pair.at_once(wait("a"), signal("t"))
    await pair.apply(wait("b"))
    waits = [await pair.wait_at(each) for each in ("a", "b")]
    return not any(each.is_pending for each in waits) and not await pair.kept()


LAWS: tuple[Law, ...] = (
    a_wait_finds_the_signal_that_comes_meanwhile,
    a_signal_finds_the_wait_that_begins_meanwhile,
    a_signal_that_comes_twice_counts_once,
    a_signal_that_was_kept_is_taken_by_one_wait,
    of_two_signals_for_one_wait_one_is_kept,
    a_signal_is_kept_beside_a_wait_for_which_another_has_come,
)


@pytest.fixture
async def pair(schema: PostgresAddress, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pair]:
    meetings = Meetings()
    committed = writing._committed

    async def met(*values: Any) -> tuple[bool, list[str]]:
        if meetings.are_on:
            await meetings.before_writing()
        return await committed(*values)

    monkeypatch.setattr(writing, "_committed", met)
    async with (
        MeetingStore(schema, meetings, delay=0.2) as mine,
        MeetingStore(schema, meetings, delay=0.0) as theirs,
    ):
        pair = Pair((mine, theirs), meetings)
        async with pair.running():
            yield pair


@pytest.mark.parametrize("law", LAWS)
async def test_operators_that_meet_over_a_signal_agree(pair: Pair, law: Law) -> None:
    async with asyncio.timeout(30):
        assert await law(pair)


Mutation = Callable[[pytest.MonkeyPatch], None]


def nothing_is_checked(patch: pytest.MonkeyPatch) -> None:
    async def unchecked(*_: Any) -> None: ...

    patch.setattr(writing, "_check_signals", unchecked)


def nobody_waits_for_the_other(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(writing._sql, "lock_signals", "SELECT cardinality($1::bigint[])")


def the_ids_of_signals_are_not_compared(patch: pytest.MonkeyPatch) -> None:
    statement = writing._sql["signal_conflicts"]
    blind = statement.replace("id = ANY ($1::text[])", "$1::text[] IS NULL")
    assert blind != statement
    patch.setitem(writing._sql, "signal_conflicts", blind)


def a_signal_that_was_taken_is_taken_again(patch: pytest.MonkeyPatch) -> None:
    statement = writing._sql["signal_conflicts"]
    blind = statement.replace("AND consumed_at IS NULL\n    )", ")")
    assert blind != statement
    patch.setitem(writing._sql, "signal_conflicts", blind)


def waits_are_not_looked_for(patch: pytest.MonkeyPatch) -> None:
    statement = writing._sql["signal_conflicts"]
    blind = statement.replace("waiting.kind = 'signal'", "waiting.kind = 'none'")
    assert blind != statement
    patch.setitem(writing._sql, "signal_conflicts", blind)


def signals_are_not_looked_for(patch: pytest.MonkeyPatch) -> None:
    statement = writing._sql["signal_conflicts"]
    blind = statement.replace("signals.name = awaited.name", "false")
    assert blind != statement
    patch.setitem(writing._sql, "signal_conflicts", blind)


MUTATIONS: dict[Mutation, Law] = {
    nothing_is_checked: a_signal_finds_the_wait_that_begins_meanwhile,
    nobody_waits_for_the_other: a_signal_finds_the_wait_that_begins_meanwhile,
    waits_are_not_looked_for: a_signal_finds_the_wait_that_begins_meanwhile,
    signals_are_not_looked_for: a_wait_finds_the_signal_that_comes_meanwhile,
    the_ids_of_signals_are_not_compared: a_signal_that_comes_twice_counts_once,
    a_signal_that_was_taken_is_taken_again: a_signal_that_was_kept_is_taken_by_one_wait,
}


@pytest.mark.parametrize("mutation", MUTATIONS)
async def test_without_a_part_of_the_check_a_signal_goes_wrong(
    pair: Pair, mutation: Mutation, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutation(monkeypatch)
    async with asyncio.timeout(30):
        assert not await MUTATIONS[mutation](pair)
