"""What becomes of inputs that one transaction takes."""

import itertools

import pytest
from msgspec.structs import replace

from durable_worker.operator import work
from durable_worker.operator.context import WorkContext
from durable_worker.operator.ledgers import Ledgers
from durable_worker.operator.messages import step_row
from durable_worker.operator.transitions.effects import Limits
from durable_worker.operator.work import UnitOfWork
from durable_worker.protocol.commands import DecisionStatus, ScheduleStep, StartChild
from durable_worker.protocol.names import Names
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.base import Batch, Lease, Owner, Store
from durable_worker.stores.inputs import StepLost
from durable_worker.stores.memory import MemoryStore
from tests.unit.operator.samples import NOW, a_run, decision, ended, pending, result, suspended

pytestmark = pytest.mark.anyio

OWED = step_row("r", 0, 1)
OWNER = Owner("operator-1", "here", "machine-1", 1, "1")
INPUTS = (OWED, result(0))


def unit_of(store: Store) -> UnitOfWork:
    ledgers = Ledgers(store, capacity=9)
    context = WorkContext(store, ledgers, Names(), Limits(), lambda *_: None, True)
    return UnitOfWork(context, now=NOW)


@pytest.mark.parametrize(
    "inputs", list(itertools.permutations(INPUTS)), ids=["owed-first", "owed-last"]
)
async def test_what_was_owed_is_forgotten_with_the_answer_that_makes_it_moot(
    inputs: tuple[object, ...],
) -> None:
    async with MemoryStore() as store:
        lease = await store.acquire_lease(OWNER, now=NOW, ttl=9_000)
        assert isinstance(lease, Lease)
        before = Batch(runs=(suspended(),), checkpoints=(pending(0),), outbox_added=(OWED,))
        await store.commit(before, lease.token)
        unit = unit_of(store)
        await unit.prepare([result(0)])
        for each in inputs:
            if each is OWED:
                await unit.resend(OWED)
            else:
                await unit.apply(result(0))
        batch, done = unit.finish(sent=(), inbox=())
        await store.commit(batch, lease.token)
        assert [row.key for row in await store.outbox()] == ["r#2"]
        assert [each.row.key for each in done.outgoing] == ["r#2"]


@pytest.mark.parametrize(("room", "has_room"), [(8, False), (9, True)])
async def test_what_a_run_drops_that_goes_on_as_new_takes_room_from_other_runs(
    room: int, has_room: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "MAX_CHANGES", room)
    dropped = [ended(pending(seq, HistoryKind.SIGNAL, name="go"), order=seq) for seq in range(4)]
    goes_on = decision(status=DecisionStatus.CONTINUED, ordered=2)
    asks = decision(StartChild(seq=0, workflow="c"), ordered=0)
    asks = replace(asks, run_id="p", decision=replace(asks.decision, run_id="p", task_id="p#1"))
    async with MemoryStore() as store:
        lease = await store.acquire_lease(OWNER, now=NOW, ttl=9_000)
        assert isinstance(lease, Lease)
        runs = (a_run(), a_run(id="p", task_id="p#1"))
        await store.commit(Batch(runs=runs, checkpoints=tuple(dropped)), lease.token)
        unit = unit_of(store)
        await unit.prepare([goes_on, asks])
        await unit.apply(goes_on)
        await unit.apply(asks)
        batch, done = unit.finish(sent=(), inbox=())
    assert (len(batch.checkpoints), len(batch.checkpoints_removed)) == (2, 4)
    assert [each.id for each in batch.runs] == ["r", "p", *(["p.child.0"] if has_room else [])]
    assert done.has_put_off is not has_room


async def test_signals_that_go_over_with_a_run_are_not_put_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(work, "MAX_CHANGES", 1)
    unread = [ended(pending(seq, HistoryKind.SIGNAL, name="go"), order=seq) for seq in (1, 2, 3)]
    goes_on = decision(status=DecisionStatus.CONTINUED, ordered=0)
    async with MemoryStore() as store:
        lease = await store.acquire_lease(OWNER, now=NOW, ttl=9_000)
        assert isinstance(lease, Lease)
        await store.commit(Batch(runs=(a_run(),), checkpoints=tuple(unread)), lease.token)
        unit = unit_of(store)
        await unit.prepare([goes_on])
        await unit.apply(goes_on)
        batch, _ = unit.finish(sent=(), inbox=())
    assert [each.id for each in batch.signals] == [f"continued:r:{seq}" for seq in (1, 2, 3)]


async def test_a_step_that_has_left_already_leaves_again_only_if_it_was_lost() -> None:
    calls = decision(ScheduleStep(seq=0, name="s", group="default"), ordered=0)
    lost = StepLost(run_id="r", seq=0, attempt=1, recoveries=0)
    sent: list[list[str]] = []
    async with MemoryStore() as store:
        lease = await store.acquire_lease(OWNER, now=NOW, ttl=9_000)
        assert isinstance(lease, Lease)
        await store.commit(Batch(runs=(a_run(),)), lease.token)
        for later in ((), (lost,)):
            unit = unit_of(store)
            await unit.prepare([calls])
            await unit.apply(calls)
            unit.disown([OWED.key])
            for each in later:
                await unit.apply(each)
            _, done = unit.finish(sent=(), inbox=())
            sent.append([each.row.key for each in done.outgoing])
    assert sent == [[], [OWED.key]]
