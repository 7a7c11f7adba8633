"""What is written at most once, and never by who may not; connections that break meanwhile."""

import asyncio

import asyncpg
import pytest
from msgspec import Raw

from durable_worker.errors import LeaseLostError, PayloadError, StoreError, StoreUnavailableError
from durable_worker.protocol.runs import RunStatus
from durable_worker.stores.address import PostgresAddress
from durable_worker.stores.base import Batch
from durable_worker.stores.inputs import CancelRequested
from durable_worker.stores.postgres import PostgresStore
from durable_worker.stores.records import RunState
from tests.conformance.stores.samples import NOW, TTL, a_checkpoint, a_run, lease_of

pytestmark = pytest.mark.anyio


async def connected(schema: PostgresAddress) -> asyncpg.Connection:
    connection = await asyncpg.connect(schema.dsn)
    await connection.execute(f"SET search_path = {schema.schema}")
    return connection


async def until_waiting(watcher: asyncpg.Connection, *, count: int = 1) -> list[int]:
    """The backends of the store that wait for a lock, once there are so many."""
    async with asyncio.timeout(20):
        while True:
            rows = await watcher.fetch(
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'durable-worker' "
                "AND wait_event_type = 'Lock' AND datname = current_database()"
            )
            if len(rows) >= count:
                return [row[0] for row in rows]
            await asyncio.sleep(0.02)


def cut_connections(store: PostgresStore) -> None:
    """As if the network were gone: the server does not hear of it."""
    pool = store._database._workers
    assert pool is not None
    for holder in pool._holders:
        if holder._con is not None:
            holder._con._transport.abort()


async def test_a_commit_that_the_server_still_works_on_is_waited_for_before_anything_is_read(
    schema: PostgresAddress,
) -> None:
    async with PostgresStore(schema) as store:
        token = await lease_of(store)
        await store.commit(Batch(runs=[a_run("a")]), token)
        watcher = await connected(schema)
        blocker = await connected(schema)
        async with blocker.transaction():
            await blocker.execute("SELECT FROM runs WHERE id = 'a' FOR UPDATE")
            ended = a_run("a", status=RunStatus.COMPLETED, output=Raw(b"1"))
            committing = asyncio.ensure_future(store.commit(Batch(runs=[ended]), token))
            await until_waiting(watcher)
            cut_connections(store)
            with pytest.raises(StoreUnavailableError):
                await committing
            reading = asyncio.ensure_future(store.load("a"))
            await until_waiting(watcher, count=2)
            assert not reading.done()
        assert await reading == RunState(ended)
        await store.commit(Batch(runs=[a_run("b")]), token)
        assert await store.load("b") is not None
        await watcher.close()
        await blocker.close()


async def test_reading_beside_a_commit_does_not_disturb_it(schema: PostgresAddress) -> None:
    async with PostgresStore(schema) as store:
        token = await lease_of(store)
        await store.commit(Batch(runs=[a_run("a")]), token)
        watcher, blocker = await connected(schema), await connected(schema)
        async with blocker.transaction():
            await blocker.execute("SELECT FROM runs WHERE id = 'a' FOR UPDATE")
            after = a_run("a", workflow="after")
            committing = asyncio.ensure_future(store.commit(Batch(runs=[after]), token))
            await until_waiting(watcher)
            assert await store.load("a") == RunState(a_run("a"))
        await committing
        assert await store.load("a") == RunState(after)
        await watcher.close()
        await blocker.close()


async def test_a_commit_that_the_server_comes_to_too_late_changes_nothing(
    schema: PostgresAddress,
) -> None:
    async with PostgresStore(schema) as store:
        token = await lease_of(store)
        await store.commit(Batch(runs=[a_run("a")]), token)
        stale = store._writer
        store._is_in_doubt = True
        assert await store.load("a") == RunState(a_run("a"))
        assert store._writer == stale + 1
        again = PostgresStore(schema)
        async with again:
            again._token, again._writer = token, stale
            with pytest.raises(LeaseLostError):
                await again.commit(Batch(runs=[a_run("a", workflow="late")]), token)
        assert await store.load("a") == RunState(a_run("a"))


async def test_a_takeover_waits_for_a_commit_that_is_under_way(schema: PostgresAddress) -> None:
    async with PostgresStore(schema) as old, PostgresStore(schema) as new:
        token = await lease_of(old)
        await old.commit(Batch(runs=[a_run("a")]), token)
        watcher, blocker = await connected(schema), await connected(schema)
        async with blocker.transaction():
            await blocker.execute("SELECT FROM runs WHERE id = 'a' FOR UPDATE")
            batch = Batch(runs=[a_run("a", workflow="before")])
            committing = asyncio.ensure_future(old.commit(batch, token))
            await until_waiting(watcher)
            acquiring = asyncio.ensure_future(lease_of(new, now=NOW + TTL))
            await until_waiting(watcher, count=2)
            assert not acquiring.done()
        await committing
        heir = await acquiring
        state = await new.load("a")
        assert state is not None
        assert state.run.workflow == "before"
        with pytest.raises(LeaseLostError):
            await old.commit(Batch(runs=[a_run("a", workflow="after")]), token)
        await new.commit(Batch(runs=[a_run("b")]), heir)
        await watcher.close()
        await blocker.close()


async def test_inputs_that_are_submitted_at_once_are_read_without_a_gap(
    schema: PostgresAddress,
) -> None:
    async with PostgresStore(schema) as reader, PostgresStore(schema) as writer:
        found: list[int] = []
        submitting = asyncio.gather(
            *(writer.submit(CancelRequested(run_id=str(number))) for number in range(200))
        )
        while len(found) < 200:
            rows = await reader.inbox(after=found[-1] if found else 0, limit=50)
            found += [row.id for row in rows]
        assert sorted(await submitting) == found == list(range(1, 201))


async def test_each_commit_raises_the_revision_of_a_run(schema: PostgresAddress) -> None:
    async with PostgresStore(schema) as store:
        token = await lease_of(store)
        for _ in range(3):
            await store.commit(Batch(runs=[a_run("a")]), token)
        watcher = await connected(schema)
        assert await watcher.fetchval("SELECT revision FROM runs") == 3
        await watcher.close()


async def test_what_cannot_be_stored_is_refused_alone_and_is_no_fault_of_the_database(
    schema: PostgresAddress,
) -> None:
    async with PostgresStore(schema) as store:
        token = await lease_of(store)
        for bad in (
            a_run("a", turn_no=2**64),
            a_run("".join(chr(0x4E00 + 37 * number % 20_000) for number in range(4_000))),
        ):
            with pytest.raises(PayloadError, match="cannot store"):
                await store.commit(Batch(runs=[bad, a_run("b")]), token)
        assert await store.load("b") is None
        await store.commit(Batch(runs=[a_run("b")]), token)
        assert await store.load("b") is not None


async def test_a_payload_of_megabytes_comes_back(schema: PostgresAddress) -> None:
    payload = Raw(b'"' + b"x" * 20_000_000 + b'"')
    async with PostgresStore(schema) as store:
        token = await lease_of(store)
        checkpoint = a_checkpoint("a", 0, output=payload)
        await store.commit(Batch(runs=[a_run("a", input=payload)], checkpoints=[checkpoint]), token)
        assert await store.load("a") == RunState(a_run("a", input=payload), [checkpoint])


async def test_a_closed_store_says_so(schema: PostgresAddress) -> None:
    store = PostgresStore(schema)
    async with store:
        pass
    with pytest.raises(StoreError, match="is closed"):
        await store.load("a")


async def test_a_store_is_opened_again(schema: PostgresAddress) -> None:
    store = PostgresStore(schema)
    for _ in range(2):
        async with store:
            assert await store.load("a") is None
