"""What a PostgreSQL store lets several operators write, and what it refuses."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from durable_worker.errors import LeaseLostError, StaleRunsError
from durable_worker.protocol.runs import RunStatus
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.address import PostgresAddress
from durable_worker.stores.base import Batch, Lease, LeaseHolder, Owner, SharedStore
from durable_worker.stores.inputs import CancelRequested
from durable_worker.stores.postgres import PostgresStore
from durable_worker.stores.records import CheckpointStatus, DueTimer, OutboxRow, SignalRecord
from tests.conformance.stores.samples import ME, NOW, TTL, a_checkpoint, a_run

pytestmark = pytest.mark.anyio

OTHER = Owner("operator-2", "there", "machine-2", 2, "2")


@pytest.fixture
async def store(schema: PostgresAddress) -> AsyncIterator[PostgresStore]:
    async with PostgresStore(schema) as store:
        yield store


@pytest.fixture
async def peer(schema: PostgresAddress) -> AsyncIterator[PostgresStore]:
    async with PostgresStore(schema) as store:
        yield store


async def joined(store: SharedStore, owner: Owner = ME, *, ttl: int = TTL) -> int:
    outcome = await store.join(owner, now=NOW, ttl=ttl)
    assert isinstance(outcome, Lease)
    return outcome.token


async def forget(schema: PostgresAddress, token: int) -> None:
    """As if a member had not been heard of for long."""
    connection = await asyncpg.connect(schema.dsn)
    await connection.execute(
        f"UPDATE {schema.schema}.members SET expires_at = 0 WHERE token = {token}"
    )
    await connection.close()


def creation(run_id: str, **changes: Any) -> Batch:
    return Batch(runs=[a_run(run_id, **changes)], expected=[(run_id, 0)])


async def test_members_write_at_once_and_each_sees_what_the_other_has_written(
    store: PostgresStore, peer: PostgresStore
) -> None:
    mine, theirs = await joined(store), await joined(peer, OTHER)
    assert mine != theirs
    await store.commit(creation("a"), mine)
    await peer.commit(creation("b"), theirs)
    found = await store.load_newer({"a": 0, "b": 0, "c": 0})
    assert {run_id: newer.state.revision for run_id, newer in found.items()} == {"a": 1, "b": 1}


async def test_a_run_that_another_member_has_moved_on_is_not_written(
    store: PostgresStore, peer: PostgresStore
) -> None:
    mine, theirs = await joined(store), await joined(peer, OTHER)
    await store.commit(creation("a"), mine)
    moved = Batch(runs=[a_run("a", turn_no=1)], expected=[("a", 1)])
    await peer.commit(moved, theirs)
    late = Batch(
        runs=[a_run("a", turn_no=7), a_run("b")],
        checkpoints=[a_checkpoint("a", 0)],
        outbox_added=[OutboxRow("k", "a")],
        inbox_added=[CancelRequested(run_id="a")],
        expected=[("a", 1), ("b", 0)],
    )
    with pytest.raises(StaleRunsError):
        await store.commit(late, mine)
    assert await store.load("b") is None
    assert await store.outbox() == []
    assert await store.inbox(after=0, limit=9) == []
    state = await store.load("a")
    assert state is not None
    assert (state.run.turn_no, state.checkpoints, state.revision) == (1, {}, 2)


async def test_what_was_only_looked_at_must_not_have_moved_on_either(
    store: PostgresStore, peer: PostgresStore
) -> None:
    mine, theirs = await joined(store), await joined(peer, OTHER)
    await store.commit(creation("a"), mine)
    await peer.commit(Batch(runs=[a_run("a", turn_no=1)], expected=[("a", 1)]), theirs)
    with pytest.raises(StaleRunsError):
        await store.commit(Batch(expected=[("a", 1)]), mine)
    await store.commit(Batch(expected=[("a", 2)]), mine)
    assert await store.load_newer({"a": 2}) == {}


async def test_a_run_is_created_by_one_of_those_who_try_at_once(
    store: PostgresStore, peer: PostgresStore
) -> None:
    tokens = await joined(store), await joined(peer, OTHER)
    for number in range(20):
        outcomes = await asyncio.gather(
            store.commit(creation(f"r{number}", workflow="mine"), tokens[0]),
            peer.commit(creation(f"r{number}", workflow="theirs"), tokens[1]),
            return_exceptions=True,
        )
        lost = [each for each in outcomes if each is not None]
        assert [type(each) for each in lost] == [StaleRunsError]
        state = await store.load(f"r{number}")
        assert state is not None
        assert state.run.workflow == ("theirs" if outcomes[1] is None else "mine")


async def test_of_increments_of_one_run_by_many_none_is_lost(schema: PostgresAddress) -> None:
    async def increment(number: int) -> int:
        conflicts = 0
        async with PostgresStore(schema) as store:
            token = await joined(store, Owner(f"o{number}", "h", f"m{number}", 1, "1"))
            for _ in range(15):
                while True:
                    state = (await store.load_newer({"a": 0}))["a"].state
                    run = a_run("a", turn_no=state.run.turn_no + 1)
                    try:
                        await store.commit(
                            Batch(runs=[run], expected=[("a", state.revision)]), token
                        )
                    except StaleRunsError:
                        conflicts += 1
                    else:
                        break
        return conflicts

    async with PostgresStore(schema) as store:
        await store.commit(creation("a"), await joined(store))
        conflicts = await asyncio.gather(*(increment(number) for number in range(4)))
        state = await store.load("a")
        assert state is not None
        assert (state.run.turn_no, state.revision) == (60, 61)
        assert sum(conflicts) > 0


async def test_transactions_over_the_same_runs_do_not_wait_for_each_other_for_ever(
    store: PostgresStore, peer: PostgresStore
) -> None:
    mine, theirs = await joined(store), await joined(peer, OTHER)
    names = [f"r{number}" for number in range(30)]
    await store.commit(
        Batch(runs=[a_run(each) for each in names], expected=[(each, 0) for each in names]), mine
    )

    async def move(by: PostgresStore, token: int, order: list[str]) -> int:
        written = 0
        while written < 10:
            newer = await by.load_newer(dict.fromkeys(order, 0))
            states = {run_id: each.state for run_id, each in newer.items()}
            runs = [states[each].run for each in order]
            try:
                await by.commit(
                    Batch(runs=runs, expected=[(each, states[each].revision) for each in order]),
                    token,
                )
            except StaleRunsError:
                continue
            written += 1
        return written

    async with asyncio.timeout(30):
        await asyncio.gather(move(store, mine, names), move(peer, theirs, names[::-1]))
    state = await store.load("r0")
    assert state is not None
    assert state.revision == 21


async def test_a_member_that_was_not_heard_of_writes_nothing_more_and_others_owe_for_it(
    store: PostgresStore, peer: PostgresStore, schema: PostgresAddress
) -> None:
    mine, theirs = await joined(store), await joined(peer, OTHER)
    await store.commit(
        Batch(runs=[a_run("a")], outbox_added=[OutboxRow("k", "a", 1, 2)], expected=[("a", 0)]),
        mine,
    )
    assert await peer.adopt(theirs) == []
    await forget(schema, mine)
    assert await peer.adopt(theirs) == [OutboxRow("k", "a", 1, 2)]
    assert await peer.owed_by(theirs) == [OutboxRow("k", "a", 1, 2)]
    with pytest.raises(LeaseLostError, match="have taken this one for dead"):
        await store.commit(Batch(runs=[a_run("a")], expected=[("a", 1)]), mine)
    with pytest.raises(LeaseLostError):
        await store.renew_lease(mine, now=NOW, ttl=TTL)
    state = await peer.load("a")
    assert state is not None
    assert state.revision == 1


async def test_who_has_sent_a_message_settles_it_for_itself_only(
    store: PostgresStore, peer: PostgresStore
) -> None:
    mine, theirs = await joined(store), await joined(peer, OTHER)
    owed = OutboxRow("k", "a", 1, 2)
    await store.commit(Batch(outbox_added=[owed]), mine)
    await peer.commit(Batch(outbox_added=[owed]), theirs)
    await store.commit(Batch(outbox_removed=["k"]), mine)
    assert await peer.owed_by(theirs) == [owed]
    await peer.commit(Batch(outbox_removed=["k"]), theirs)
    assert await peer.outbox() == []


async def test_a_renewed_membership_lasts_and_a_left_one_owes_nothing(
    store: PostgresStore, peer: PostgresStore, schema: PostgresAddress
) -> None:
    mine, theirs = await joined(store), await joined(peer, OTHER)
    await forget(schema, mine)
    await store.renew_lease(mine, now=NOW, ttl=TTL)
    assert await peer.adopt(theirs) == []
    await store.commit(creation("a"), mine)
    await store.release_lease(mine)
    with pytest.raises(LeaseLostError):
        await store.commit(creation("b"), mine)


async def test_nobody_is_a_member_beside_a_holder_of_the_lease(
    store: PostgresStore, peer: PostgresStore, schema: PostgresAddress
) -> None:
    theirs = await joined(peer, OTHER)
    held = await store.acquire_lease(ME, now=NOW, ttl=TTL)
    assert isinstance(held, LeaseHolder)
    assert held.owner == OTHER
    await peer.release_lease(theirs)
    lease = await store.acquire_lease(ME, now=NOW, ttl=TTL)
    assert isinstance(lease, Lease)
    assert await peer.join(OTHER, now=NOW, ttl=TTL) == LeaseHolder(ME, NOW + TTL)
    await store.release_lease(lease.token)
    theirs = await joined(peer, OTHER)
    await forget(schema, theirs)
    again = await store.acquire_lease(ME, now=NOW, ttl=TTL)
    assert again == Lease(theirs + 1, is_takeover=True)


def signal(signal_id: str, **changes: Any) -> SignalRecord:
    fields: dict[str, Any] = {
        "id": signal_id,
        "namespace": "default",
        "name": "go",
        "received_at": NOW,
        **changes,
    }
    return SignalRecord(**fields)


def waiting(run_id: str, revision: int) -> Batch:
    return Batch(
        runs=[a_run(run_id)],
        checkpoints=[a_checkpoint(run_id, 0, kind=HistoryKind.SIGNAL, name="go")],
        expected=[(run_id, revision)],
        waits_begun=[("default", "go")],
    )


async def test_a_wait_is_not_begun_beside_a_signal_that_has_come_meanwhile(
    store: PostgresStore, peer: PostgresStore
) -> None:
    mine, theirs = await joined(store), await joined(peer, OTHER)
    arrived = Batch(signals=[signal("s")], signals_arrived=["s"])
    await peer.commit(arrived, theirs)
    with pytest.raises(StaleRunsError, match="signals"):
        await store.commit(waiting("a", 0), mine)
    with pytest.raises(StaleRunsError, match="signals"):
        await store.commit(arrived, mine)
    taken = Batch(
        runs=[a_run("a")],
        signals=[signal("s", consumed_at=NOW + 1)],
        expected=[("a", 0)],
    )
    await store.commit(taken, mine)
    with pytest.raises(StaleRunsError, match="signals"):
        await peer.commit(
            Batch(
                runs=[a_run("b")],
                signals=[signal("s", consumed_at=NOW + 1)],
                expected=[("b", 0)],
            ),
            theirs,
        )
    await peer.commit(waiting("b", 0), theirs)


async def test_a_signal_is_not_kept_beside_a_wait_that_has_begun_meanwhile(
    store: PostgresStore, peer: PostgresStore
) -> None:
    mine, theirs = await joined(store), await joined(peer, OTHER)
    await store.commit(waiting("a", 0), mine)
    arrived = Batch(signals=[signal("s")], signals_arrived=["s"])
    with pytest.raises(StaleRunsError, match="signals"):
        await peer.commit(arrived, theirs)
    resolved = a_checkpoint(
        "a", 0, kind=HistoryKind.SIGNAL, name="go", status=CheckpointStatus.COMPLETED
    )
    await peer.commit(
        Batch(
            runs=[a_run("a")],
            checkpoints=[resolved],
            signals=[signal("s", consumed_at=NOW), signal("t")],
            signals_arrived=["s", "t"],
            expected=[("a", 1)],
        ),
        theirs,
    )
    assert await peer.waiters("default", "go", limit=9) == []


async def test_of_a_signal_and_a_wait_at_once_one_sees_the_other(
    store: PostgresStore, peer: PostgresStore
) -> None:
    tokens = await joined(store), await joined(peer, OTHER)
    for number in range(40):
        name = f"go{number}"
        wait = Batch(
            runs=[a_run(name)],
            checkpoints=[a_checkpoint(name, 0, kind=HistoryKind.SIGNAL, name=name)],
            expected=[(name, 0)],
            waits_begun=[("default", name)],
        )
        arrival = Batch(signals=[signal(name, name=name)], signals_arrived=[name])
        outcomes = await asyncio.gather(
            store.commit(wait, tokens[0]),
            peer.commit(arrival, tokens[1]),
            return_exceptions=True,
        )
        assert sorted(str(type(each)) for each in outcomes) == sorted(
            [str(type(None)), str(StaleRunsError)]
        )


async def test_timers_are_those_of_who_wrote_them_until_they_are_late(
    store: PostgresStore, peer: PostgresStore
) -> None:
    mine, theirs = await joined(store), await joined(peer, OTHER)
    timer = a_checkpoint("a", 0, kind=HistoryKind.TIMER, fires_at=NOW + 100)
    await store.commit(Batch(runs=[a_run("a")], checkpoints=[timer], expected=[("a", 0)]), mine)
    due = [DueTimer("a", 0, NOW + 100)]
    assert await store.next_timer_for(mine, grace=50) == NOW + 100
    assert await peer.next_timer_for(theirs, grace=50) == NOW + 150
    assert await store.due_timers_for(mine, NOW + 100, grace=50, limit=9) == due
    assert await peer.due_timers_for(theirs, NOW + 149, grace=50, limit=9) == []
    assert await peer.due_timers_for(theirs, NOW + 150, grace=50, limit=9) == due


async def test_what_was_submitted_is_taken_by_one_member_and_by_another_once_that_is_gone(
    store: PostgresStore, peer: PostgresStore, schema: PostgresAddress
) -> None:
    mine, theirs = await joined(store), await joined(peer, OTHER)
    ids = [await store.submit(CancelRequested(run_id=f"r{number}")) for number in range(3)]
    taken = await store.take_inbox(mine, limit=2)
    assert [row.id for row in taken] == ids[:2]
    assert [row.id for row in await peer.take_inbox(theirs, limit=9)] == ids[2:]
    assert await store.take_inbox(mine, limit=9) == []
    await forget(schema, mine)
    await peer.adopt(theirs)
    assert [row.id for row in await peer.take_inbox(theirs, limit=9)] == ids[:2]


async def test_runs_that_have_ended_are_told(store: PostgresStore) -> None:
    token = await joined(store)
    ended = a_run("a", status=RunStatus.COMPLETED)
    runs = [ended, a_run("b")]
    await store.commit(Batch(runs=runs, expected=[("a", 0), ("b", 0)]), token)
    assert await store.ended_runs(["a", "b", "c"]) == [ended]
