"""What is written at most once, and never by who may not; connections that break meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from durable_worker.errors import LeaseLostError, PayloadError, StoreError, StoreUnavailableError
from durable_worker.protocol.runs import RunStatus
from durable_worker.stores.address import MysqlAddress
from durable_worker.stores.base import Batch
from durable_worker.stores.inputs import CancelRequested
from durable_worker.stores.mysql import MysqlStore
from durable_worker.stores.mysql.connection import IDLE_SECONDS, Connection, connected
from durable_worker.stores.mysql.statements import literal
from durable_worker.stores.records import RunState
from tests.conformance.stores.samples import NOW, TTL, a_checkpoint, a_run, lease_of
from tests.servers import completed

pytestmark = pytest.mark.anyio

POLL_SECONDS = 0.15
"""What the server tells of transactions is as old as the last question, if that came sooner."""


@asynccontextmanager
async def session(database: MysqlAddress) -> AsyncIterator[Connection]:
    connection = await connected(database)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def run_locked(database: MysqlAddress, run_id: str = "a") -> AsyncIterator[Connection]:
    """Somebody else holds the row of this run."""
    async with session(database) as blocker:
        locked = f"SELECT id FROM durable_runs WHERE id = '{run_id}' FOR UPDATE"
        await blocker.ask(f"START TRANSACTION; {locked}".encode())
        try:
            yield blocker
        finally:
            await blocker.ask(b"ROLLBACK")


async def until_waiting(
    watcher: Connection, database: MysqlAddress, *, count: int = 1
) -> list[int]:
    """The sessions in the database that wait for a lock, once there are so many."""
    waiting = (
        f"SELECT trx_mysql_thread_id FROM information_schema.innodb_trx "
        f"JOIN information_schema.processlist ON id = trx_mysql_thread_id "
        f"WHERE trx_state = 'LOCK WAIT' AND db = '{database.database}'"
    ).encode()
    async with asyncio.timeout(20):
        while True:
            rows = (await watcher.ask(waiting))[0].rows
            if len(rows) >= count:
                return [row[0] for row in rows]
            await asyncio.sleep(POLL_SECONDS)


async def test_a_commit_that_the_server_still_works_on_is_waited_for_before_anything_is_read(
    mysql_database: MysqlAddress,
) -> None:
    async with MysqlStore(mysql_database) as store, session(mysql_database) as watcher:
        token = await lease_of(store)
        await store.commit(Batch(runs=[a_run("a")]), token)
        ended = a_run("a", status=RunStatus.COMPLETED, output=Raw(b"1"))
        async with run_locked(mysql_database):
            committing = asyncio.ensure_future(store.commit(Batch(runs=[ended]), token))
            await until_waiting(watcher, mysql_database)
            committing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await committing
            reading = asyncio.ensure_future(store.load("a"))
            await until_waiting(watcher, mysql_database, count=2)
            assert not reading.done()
        assert await reading == RunState(ended)
        await store.commit(Batch(runs=[a_run("b")]), token)
        assert await store.load("b") is not None


async def test_a_session_that_is_killed_within_a_commit_has_changed_nothing(
    mysql_database: MysqlAddress,
) -> None:
    async with MysqlStore(mysql_database) as store, session(mysql_database) as watcher:
        token = await lease_of(store)
        await store.commit(Batch(runs=[a_run("a")]), token)
        async with run_locked(mysql_database):
            batch = Batch(runs=[a_run("b"), a_run("a", workflow="after")])
            committing = asyncio.ensure_future(store.commit(batch, token))
            (thread,) = await until_waiting(watcher, mysql_database)
            await watcher.ask(f"KILL {thread}".encode())
            with pytest.raises(StoreUnavailableError, match="connection"):
                await committing
        assert await store.load_many(["a", "b"]) == {"a": RunState(a_run("a"))}
        await store.commit(batch, token)
        assert set(await store.load_many(["a", "b"])) == {"a", "b"}


async def test_reading_beside_a_commit_does_not_disturb_it(mysql_database: MysqlAddress) -> None:
    async with MysqlStore(mysql_database) as store, session(mysql_database) as watcher:
        token = await lease_of(store)
        await store.commit(Batch(runs=[a_run("a")]), token)
        after = a_run("a", workflow="after")
        async with run_locked(mysql_database):
            committing = asyncio.ensure_future(store.commit(Batch(runs=[after]), token))
            await until_waiting(watcher, mysql_database)
            assert await store.load("a") == RunState(a_run("a"))
        await committing
        assert await store.load("a") == RunState(after)


async def test_a_commit_that_the_server_comes_to_too_late_changes_nothing(
    mysql_database: MysqlAddress,
) -> None:
    async with MysqlStore(mysql_database) as store, MysqlStore(mysql_database) as again:
        token = await lease_of(store)
        await store.commit(Batch(runs=[a_run("a")]), token)
        stale = store._writer
        store._is_in_doubt = True
        assert await store.load("a") == RunState(a_run("a"))
        assert store._writer == stale + 1
        again._token, again._writer = token, stale
        with pytest.raises(LeaseLostError):
            await again.commit(Batch(runs=[a_run("a", workflow="late")]), token)
        assert await store.load("a") == RunState(a_run("a"))


async def test_a_transaction_sees_what_others_have_committed_since_it_began(
    mysql_database: MysqlAddress,
) -> None:
    async with session(mysql_database) as one, session(mysql_database) as other:
        count = b"SELECT COUNT(*) FROM durable_inbox"
        before = await one.ask(b"START TRANSACTION; " + count)
        await other.ask(b"INSERT INTO durable_inbox VALUES (1, '')")
        after = await one.ask(count)
        assert (before[1].rows[0][0], after[0].rows[0][0]) == (0, 1)


async def test_a_takeover_waits_for_a_commit_that_is_under_way(
    mysql_database: MysqlAddress,
) -> None:
    async with (
        MysqlStore(mysql_database) as old,
        MysqlStore(mysql_database) as new,
        session(mysql_database) as watcher,
    ):
        token = await lease_of(old)
        await old.commit(Batch(runs=[a_run("a")]), token)
        async with run_locked(mysql_database):
            batch = Batch(runs=[a_run("a", workflow="before")])
            committing = asyncio.ensure_future(old.commit(batch, token))
            await until_waiting(watcher, mysql_database)
            acquiring = asyncio.ensure_future(lease_of(new, now=NOW + TTL))
            await until_waiting(watcher, mysql_database, count=2)
            assert not acquiring.done()
        await committing
        heir = await acquiring
        state = await new.load("a")
        assert state is not None
        assert state.run.workflow == "before"
        with pytest.raises(LeaseLostError):
            await old.commit(Batch(runs=[a_run("a", workflow="after")]), token)
        await new.commit(Batch(runs=[a_run("b")]), heir)


async def test_a_commit_that_a_deadlock_has_ended_is_made_again(
    mysql_database: MysqlAddress,
) -> None:
    async with MysqlStore(mysql_database) as store, session(mysql_database) as watcher:
        token = await lease_of(store)
        await store.commit(Batch(runs=[a_run("a"), a_run("b")]), token)
        after = [a_run("a", workflow="after"), a_run("b", workflow="after")]
        before = await deadlocks(watcher)
        async with session(mysql_database) as other:
            # The one that has changed less is the one to give way.
            ballast = ",".join(f"('ballast', '{number}', 0, '')" for number in range(2_000))
            columns = "(namespace, tag, created_at, id)"
            await other.ask(
                f"START TRANSACTION; INSERT INTO durable_run_tags {columns} VALUES {ballast}; "
                f"UPDATE durable_runs SET turn_no = 7 WHERE id = 'b'".encode()
            )
            committing = asyncio.ensure_future(store.commit(Batch(runs=after), token))
            await until_waiting(watcher, mysql_database)
            crossing = asyncio.ensure_future(
                other.ask(b"UPDATE durable_runs SET turn_no = 7 WHERE id = 'a'; ROLLBACK")
            )
            await crossing
            await committing
        found = await store.load_many(["a", "b"])
        assert [found[each].run for each in ("a", "b")] == after
        assert await deadlocks(watcher) > before


async def deadlocks(watcher: Connection) -> int:
    """How many there were on the server, by the name of the counter on MariaDB or on MySQL."""
    counted = await watcher.ask(
        b"SHOW GLOBAL STATUS WHERE Variable_name = 'Innodb_deadlocks'; "
        b"SELECT count FROM information_schema.innodb_metrics WHERE name = 'lock_deadlocks'"
    )
    rows = counted[0].rows or counted[1].rows
    return int(rows[0][-1])


async def test_who_waits_for_a_lock_too_long_is_told_so_and_has_changed_nothing(
    mysql_database: MysqlAddress,
) -> None:
    async with MysqlStore(mysql_database) as store:
        token = await lease_of(store)
        await store.commit(Batch(runs=[a_run("a")]), token)
        async with store._database.connection() as connection:
            await connection.ask(b"SET SESSION innodb_lock_wait_timeout = 0")
        async with run_locked(mysql_database):
            batch = Batch(runs=[a_run("b"), a_run("a", workflow="after")])
            with pytest.raises(StoreUnavailableError, match="locked by another transaction"):
                await store.commit(batch, token)
        assert await store.load("b") is None
        await store.commit(batch, token)
        assert await store.load("b") is not None


async def test_inputs_that_are_submitted_at_once_are_read_without_a_gap(
    mysql_database: MysqlAddress,
) -> None:
    async with MysqlStore(mysql_database) as reader, MysqlStore(mysql_database) as writer:
        found: list[int] = []
        submitting = asyncio.gather(
            *(writer.submit(CancelRequested(run_id=str(number))) for number in range(200))
        )
        while len(found) < 200:
            rows = await reader.inbox(after=found[-1] if found else 0, limit=50)
            found += [row.id for row in rows]
        assert sorted(await submitting) == found == list(range(1, 201))


async def test_what_cannot_be_stored_is_refused_alone_and_is_no_fault_of_the_database(
    mysql_database: MysqlAddress,
) -> None:
    async with MysqlStore(mysql_database) as store:
        token = await lease_of(store)
        for bad in (
            a_run("a", turn_no=2**64),
            a_run("a" * 2_000),
            a_run("a", workflow="\ud800"),
            a_run("a", input=Raw(b"'" * store._database.packet_limit)),
        ):
            with pytest.raises(PayloadError, match="cannot store"):
                await store.commit(Batch(runs=[bad, a_run("b")]), token)
        assert await store.load("b") is None
        await store.commit(Batch(runs=[a_run("b")]), token)
        assert await store.load("b") is not None


async def test_a_row_that_is_larger_than_a_packet_is_refused_with_what_to_do(
    mysql_database: MysqlAddress,
) -> None:
    async with MysqlStore(mysql_database) as store:
        token = await lease_of(store)
        store._database.packet_limit = 100_000
        large = a_run("a", input=Raw(b"1" * 100_000))
        with pytest.raises(
            PayloadError, match="max_allowed_packet of the server is 100,000"
        ) as told:
            await store.commit(Batch(runs=[large]), token)
        assert "ClaimCheck" in str(told.value)


async def test_a_batch_of_more_than_a_packet_comes_back_and_is_one_transaction(
    mysql_database: MysqlAddress,
) -> None:
    payload = Raw(b'"' + b"x'\\\\" * 1_000_000 + b'"')
    runs = [a_run(str(number), input=payload) for number in range(6)]
    async with MysqlStore(mysql_database) as store:
        token = await lease_of(store)
        with pytest.raises(PayloadError):
            await store.commit(Batch(runs=[*runs, a_run("z" * 2_000)]), token)
        assert await store.load("0") is None
        await store.commit(Batch(runs=runs), token)
        assert await store.load_many([each.id for each in runs]) == {
            each.id: RunState(each) for each in runs
        }


async def test_ids_that_differ_in_case_accent_or_blanks_are_different_runs(
    mysql_database: MysqlAddress,
) -> None:
    ids = ["a", "A", "a ", "a\x00", "\u00e1", "a\u0301", "", " "]
    async with MysqlStore(mysql_database) as store:
        token = await lease_of(store)
        await store.commit(Batch(runs=[a_run(each, workflow=each) for each in ids]), token)
        found = await store.load_many(ids)
        assert {run_id: state.run.workflow for run_id, state in found.items()} == {
            each: each for each in ids
        }


@given(st.lists(st.binary() | st.text() | st.integers(-(2**63), 2**63 - 1) | st.none(), min_size=1))
@settings(max_examples=60)
def test_a_literal_is_what_it_says(
    shared_mysql_database: MysqlAddress, values: list[bytes | str | int | None]
) -> None:
    async def echoed() -> tuple[object, ...]:
        async with session(shared_mysql_database) as connection:
            answers = await connection.ask(b"SELECT %b" % b", ".join(map(literal, values)))
            return tuple(answers[0].rows[0])

    wanted = tuple(each.encode() if isinstance(each, str) else each for each in values)
    assert completed(echoed()) == wanted


async def test_has_news_tells_of_what_other_processes_submit(mysql_database: MysqlAddress) -> None:
    async with MysqlStore(mysql_database) as reader, MysqlStore(mysql_database) as writer:
        await reader.has_news()
        assert not await reader.has_news()
        await writer.submit(CancelRequested(run_id="a"))
        assert await reader.has_news()
        assert not await reader.has_news()


async def test_a_connection_that_lay_idle_for_long_is_not_used_again(
    mysql_database: MysqlAddress,
) -> None:
    async with MysqlStore(mysql_database) as store:
        database, used = store._database, list[int]()
        for idle in (0, 0, IDLE_SECONDS):
            async with database.connection() as connection:
                used.append((await connection.ask(b"SELECT CONNECTION_ID()"))[0].rows[0][0])
                connection._used_at -= idle
        used.append((await database.ask(b"SELECT CONNECTION_ID()")).rows[0][0])
        assert used[0] == used[1] == used[2] != used[3]


async def test_a_closed_store_says_so(mysql_database: MysqlAddress) -> None:
    store = MysqlStore(mysql_database)
    async with store:
        pass
    with pytest.raises(StoreError, match="is closed"):
        await store.load("a")


async def test_a_store_is_opened_again(mysql_database: MysqlAddress) -> None:
    store = MysqlStore(mysql_database)
    for _ in range(2):
        async with store:
            assert await store.load("a") is None


async def test_checkpoints_are_loaded_as_of_the_commit_of_their_run(
    mysql_database: MysqlAddress,
) -> None:
    async with MysqlStore(mysql_database) as store, MysqlStore(mysql_database) as reader:
        token = await lease_of(store)
        await store.commit(Batch(runs=[a_run("a")], checkpoints=[a_checkpoint("a", 0)]), token)

        async def write() -> None:
            for number in range(1, 60):
                changed = a_checkpoint("a", 0, attempt=number)
                run = a_run("a", turn_no=number)
                await store.commit(Batch(runs=[run], checkpoints=[changed]), token)

        writing = asyncio.ensure_future(write())
        seen: set[int] = set()
        while not writing.done():
            state = await reader.load("a")
            assert state is not None
            assert max(state.run.turn_no, 1) == state.checkpoints[0].attempt
            seen.add(state.run.turn_no)
        await writing
        assert len(seen) > 1
