"""A run that others have moved on: only what is newer is read, and it comes to the same."""

from collections.abc import AsyncIterator
from random import Random

import pytest

from durable_worker.operator.ledgers import Ledger, Ledgers
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.address import PostgresAddress
from durable_worker.stores.base import Batch, Lease
from durable_worker.stores.postgres import PostgresStore
from durable_worker.stores.records import Checkpoint, CheckpointStatus, RunState
from tests.conformance.stores.samples import ME, NOW, TTL, a_checkpoint, a_run
from tests.integration.operators.test_shared_store import OTHER, joined

pytestmark = pytest.mark.anyio


@pytest.fixture
async def store(schema: PostgresAddress) -> AsyncIterator[PostgresStore]:
    async with PostgresStore(schema) as store:
        yield store


def written(*checkpoints: Checkpoint, revision: int, removed: tuple[int, ...] = ()) -> Batch:
    return Batch(
        runs=[a_run("a", turn_no=revision)],
        checkpoints=checkpoints,
        checkpoints_removed=[("a", seq) for seq in removed],
        expected=[("a", revision)],
    )


def numbered(*seqs: int, name: str = "charge") -> list[Checkpoint]:
    return [a_checkpoint("a", seq, name=name) for seq in seqs]


async def test_only_checkpoints_that_have_changed_since_are_read(store: PostgresStore) -> None:
    token = await joined(store)
    await store.commit(written(*numbered(0, 1, 2), revision=0), token)
    changed = numbered(1, 3, name="refund")
    await store.commit(written(*changed, revision=1), token)
    newer = (await store.load_newer({"a": 1}))["a"]
    assert newer.since == 1
    assert newer.state == RunState(a_run("a", turn_no=1), changed)
    assert newer.state.revision == 2
    unknown = (await store.load_newer({"a": 0}))["a"]
    assert (unknown.since, sorted(unknown.state.checkpoints)) == (0, [0, 1, 2, 3])


async def test_all_is_read_once_checkpoints_were_taken_away(store: PostgresStore) -> None:
    token = await joined(store)
    await store.commit(written(*numbered(0, 1, 2), revision=0), token)
    await store.commit(written(revision=1, removed=(2,)), token)
    await store.commit(written(*numbered(3), revision=2), token)
    before = (await store.load_newer({"a": 1}))["a"]
    assert (before.since, sorted(before.state.checkpoints)) == (0, [0, 1, 3])
    after = (await store.load_newer({"a": 2}))["a"]
    assert (after.since, sorted(after.state.checkpoints)) == (2, [3])


async def test_what_a_lone_writer_has_changed_is_newer_than_whatever_was_known(
    store: PostgresStore,
) -> None:
    token = await joined(store)
    await store.commit(written(*numbered(0, 1), revision=0), token)
    await store.release_lease(token)
    lease = await store.acquire_lease(ME, now=NOW, ttl=TTL)
    assert isinstance(lease, Lease)
    alone = Batch(runs=[a_run("a", turn_no=5)], checkpoints=numbered(1, 2))
    await store.commit(alone, lease.token)
    newer = (await store.load_newer({"a": 1}))["a"]
    assert (newer.state.run.turn_no, sorted(newer.state.checkpoints)) == (5, [1, 2])
    await store.commit(Batch(runs=[a_run("a")], checkpoints_removed=[("a", 2)]), lease.token)
    newer = (await store.load_newer({"a": 1}))["a"]
    assert (newer.since, sorted(newer.state.checkpoints)) == (0, [0, 1])


def some_change(random: Random, revision: int) -> Batch:
    removed = random.sample(range(12), random.choice((0, 0, 0, 1, 2)))
    seqs = [seq for seq in random.sample(range(12), random.randrange(5)) if seq not in removed]
    changed = [some_checkpoint(random, seq, revision) for seq in seqs]
    return written(*changed, revision=revision, removed=tuple(removed))


def some_checkpoint(random: Random, seq: int, revision: int) -> Checkpoint:
    status = random.choice(list(CheckpointStatus))
    is_ordered = status is not CheckpointStatus.PENDING and random.random() < 0.5
    return a_checkpoint(
        "a",
        seq,
        kind=random.choice((HistoryKind.CALL, HistoryKind.TIMER)),
        name=f"n{revision}",
        status=status,
        order=revision if is_ordered else None,
    )


@pytest.mark.parametrize("seed", range(6))
async def test_a_ledger_that_catches_up_is_as_one_that_is_read_anew(
    store: PostgresStore, schema: PostgresAddress, seed: int
) -> None:
    random = Random(seed)
    async with PostgresStore(schema) as peer:
        await joined(store)
        theirs = await joined(peer, OTHER)
        ledgers = Ledgers(store, capacity=1_000)
        for revision in range(80):
            await peer.commit(some_change(random, revision), theirs)
            if random.random() < 0.4:
                await ledgers.fetch(["a"], anew=store)
                if random.random() < 0.5:
                    ledgers.held("a").history()  # what is joined by then is kept as it is
        await ledgers.fetch(["a"], anew=store)
        fresh = await store.load("a")
    assert fresh is not None
    caught_up = ledgers.held("a")
    assert caught_up.state == fresh
    assert caught_up.state.revision == fresh.revision == 80
    assert dict(caught_up.state.pending) == dict(fresh.pending)
    assert dict(caught_up.state.timers) == dict(fresh.timers)
    assert caught_up.state.last_order >= fresh.last_order
    assert bytes(caught_up.history()) == bytes(Ledger(fresh).history())
