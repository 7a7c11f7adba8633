"""What only a file has: other processes, other formats, a disk that is full."""

import asyncio
import errno
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec import UNSET, Raw

from durable_worker.errors import StoreError, StoreFullError
from durable_worker.stores.base import Batch, Lease, LeaseHolder
from durable_worker.stores.inputs import CancelRequested
from durable_worker.stores.processes import is_gone, this_process
from durable_worker.stores.records import RunState
from durable_worker.stores.sqlite import SqliteStore
from durable_worker.stores.sqlite.connection import translated_errors
from tests.conformance.stores.samples import NOW, TTL, a_checkpoint, a_run, lease_of

pytestmark = pytest.mark.anyio

_WRITER = """
import asyncio, sys
from durable_worker.stores.base import Batch
from durable_worker.stores.processes import this_process
from durable_worker.stores.sqlite import SqliteStore
from tests.conformance.stores.samples import NOW, a_run

async def main():
    async with SqliteStore(sys.argv[1]) as store:
        lease = await store.acquire_lease(this_process("victim"), now=NOW, ttl=3_600_000)
        number = 0
        while True:
            await store.commit(Batch(runs=[a_run(f"run-{number}")]), lease.token)
            print(number, flush=True)
            number += 1

asyncio.run(main())
"""

_SUBMITTER = """
import asyncio, sys
from durable_worker.stores.inputs import CancelRequested
from durable_worker.stores.sqlite import SqliteStore

async def main():
    async with SqliteStore(sys.argv[1]) as store:
        for number in range(100):
            await store.submit(CancelRequested(run_id=f"{sys.argv[2]}-{number}"))

asyncio.run(main())
"""


@contextmanager
def killed_writer(path: Path) -> Iterator[None]:
    """A process that held the lease, killed while it committed and not reaped yet: a zombie."""
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True
    ) as victim:
        assert victim.stdout is not None
        for line in victim.stdout:
            if line.strip() == "20":
                break
        victim.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, victim.pid, os.WEXITED | os.WNOWAIT)
        yield


async def test_what_a_killed_writer_committed_is_there_and_its_lease_is_free_at_once(
    tmp_path: Path,
) -> None:
    path = tmp_path / "db"
    with killed_writer(path):
        async with SqliteStore(path) as store:
            lease = await store.acquire_lease(this_process("heir"), now=NOW, ttl=TTL)
            assert lease == Lease(2, is_takeover=True)
            assert await store.load("run-20") is not None
            await store.commit(Batch(runs=[a_run("after")]), lease.token)


async def test_the_lease_of_a_living_process_of_this_machine_is_respected(tmp_path: Path) -> None:
    async with SqliteStore(tmp_path / "db") as store, SqliteStore(tmp_path / "db") as other:
        await store.acquire_lease(this_process("a"), now=NOW, ttl=TTL)
        held = await other.acquire_lease(this_process("b"), now=NOW + 1, ttl=TTL)
        assert isinstance(held, LeaseHolder)
        assert held.owner == this_process("a")
        assert not is_gone(held.owner)


async def test_other_processes_submit_while_the_operator_commits(tmp_path: Path) -> None:
    path = tmp_path / "db"
    async with SqliteStore(path) as store:
        token = await lease_of(store)
        await store.has_news()
        others = [
            await asyncio.create_subprocess_exec(sys.executable, "-c", _SUBMITTER, str(path), name)
            for name in "xy"
        ]
        finishing = asyncio.gather(*(each.wait() for each in others))
        number = 0
        while not finishing.done():
            await store.commit(Batch(checkpoints=[a_checkpoint("a", number)]), token)
            number += 1
        assert await finishing == [0, 0]
        assert await store.has_news()
        rows = await store.inbox(after=0, limit=500)
        found = [row.input.run_id for row in rows if isinstance(row.input, CancelRequested)]
        assert sorted(found) == sorted(f"{name}-{n}" for name in "xy" for n in range(100))
        assert not await store.has_news()


async def test_rows_survive_closing_and_opening(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "db"
    async with SqliteStore(path) as store:
        await store.commit(Batch(runs=[a_run("a")]), await lease_of(store))
    async with SqliteStore(path) as store:
        assert await store.load("a") is not None


async def test_an_input_of_a_newer_release_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "db"
    async with SqliteStore(path) as store:
        with sqlite3.connect(path) as database:
            database.execute("INSERT INTO inbox (body) VALUES (?)", (b'{"type":"unheard-of"}',))
        database.close()
        (row,) = await store.inbox(after=0, limit=9)
        assert (row.input, row.body) == (None, b'{"type":"unheard-of"}')


async def refusal(path: Path) -> str:
    with pytest.raises(StoreError) as caught:
        async with SqliteStore(path):
            pass
    assert not isinstance(caught.value, StoreFullError)
    return str(caught.value)


async def test_a_newer_database_is_refused_with_both_versions(tmp_path: Path) -> None:
    path = tmp_path / "db"
    async with SqliteStore(path):
        pass
    with sqlite3.connect(path) as database:
        database.execute("UPDATE schema_version SET version = 99")
    database.close()
    message = await refusal(path)
    assert "schema version 99" in message
    assert "knows version 3" in message
    assert "upgrade" in message


FIRST_TABLES = """
ALTER TABLE runs DROP COLUMN ordered;
ALTER TABLE checkpoints DROP COLUMN resolved_as;
DROP TABLE dead_letters;
CREATE TABLE dead_letters (
    id TEXT PRIMARY KEY,
    received_at INTEGER NOT NULL,
    type TEXT,
    message_id TEXT,
    reason TEXT NOT NULL,
    body BLOB NOT NULL,
    headers BLOB NOT NULL
);
CREATE INDEX dead_letters_by_age ON dead_letters (received_at, id);
DELETE FROM schema_version;
INSERT INTO schema_version VALUES (1);
"""


async def a_database_of_the_first_release(path: Path, *letters: tuple[str, bytes]) -> None:
    async with SqliteStore(path) as store:
        token = await lease_of(store)
        await store.commit(Batch(runs=[a_run("r", namespace="acme")]), token)
        await store.release_lease(token)
    with sqlite3.connect(path) as database:
        database.executescript(FIRST_TABLES)
        for letter_id, body in letters:
            database.execute(
                "INSERT INTO dead_letters VALUES (?, ?, 'step-task', 'm', 'bad', ?, ?)",
                (letter_id, NOW, body, b"{}"),
            )
    database.close()


async def test_a_database_of_the_first_release_is_upgraded_with_its_dead_letters(
    tmp_path: Path,
) -> None:
    path = tmp_path / "db"
    letters = [
        ("a", b'{"runId":"r","seq":4}'),
        ("b", b'{"runId":"unknown","seq":4}'),
        ("c", b"\xff\xfe"),
        ("d", b'{"runId":"r","seq":"4","taskId":"r#1"}'),
    ]
    await a_database_of_the_first_release(path, *letters)
    for _ in range(2):
        async with SqliteStore(path) as store:
            found = {each.id: each for each in await store.dead_letters(limit=9)}
            assert await store.load("r") == RunState(a_run("r", namespace="acme"))
    told = {
        letter_id: (each.namespace, each.run_id, each.seq, each.task_id, each.size)
        for letter_id, each in found.items()
    }
    assert told == {
        "a": ("acme", "r", 4, None, 21),
        "b": ("default", None, None, None, 27),
        "c": ("default", None, None, None, 2),
        "d": ("acme", "r", None, "r#1", 38),
    }


async def test_a_database_that_an_older_release_works_on_is_not_upgraded_under_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "db"
    await a_database_of_the_first_release(path)
    until = time.time_ns() // 1_000_000 + 60_000
    with sqlite3.connect(path) as database:
        row = (9, "old", "elsewhere", "machine-2", 1, until)
        database.execute("DELETE FROM lease")
        database.execute("INSERT INTO lease VALUES (1, ?, ?, ?, ?, ?, NULL, ?, 0)", row)
    database.close()
    assert "an operator of an older release works on it: stop that one" in await refusal(path)
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT max(version) FROM schema_version").fetchone() == (1,)
        database.execute("UPDATE lease SET expires_at = 0")
    database.close()
    async with SqliteStore(path) as store:
        assert await store.dead_letters(limit=9) == []


async def test_both_ways_to_the_newest_schema_lead_to_the_same_tables(tmp_path: Path) -> None:
    await a_database_of_the_first_release(tmp_path / "old")
    described = []
    for name in ("old", "new"):
        async with SqliteStore(tmp_path / name):
            pass
        with sqlite3.connect(tmp_path / name) as database:
            tables = database.execute("SELECT name FROM sqlite_schema WHERE sql IS NOT NULL")
            described.append(
                {
                    table: database.execute(f"PRAGMA table_xinfo({table})").fetchall()
                    for (table,) in tables.fetchall()
                }
            )
        database.close()
    assert described[0] == described[1]


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to be looked at\n" * 100)
    assert "is not a SQLite database" in await refusal(path)


async def test_a_database_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE theirs (x)")
    database.close()
    assert "holds tables of something else" in await refusal(path)


async def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert "cannot be opened" in await refusal(tmp_path)


async def test_a_path_through_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be opened" in await refusal(tmp_path / "file" / "db")


async def test_a_damaged_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "db"
    async with SqliteStore(path) as store:
        await store.commit(Batch(runs=[a_run(f"r{n}") for n in range(500)]), await lease_of(store))
    content = bytearray(path.read_bytes())
    content[200:4096] = b"\xff" * (4096 - 200)
    path.write_bytes(content)
    message = await refusal(path)
    assert "damaged" in message


async def test_a_disk_that_fills_up_refuses_the_commit_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "db"
    async with SqliteStore(path) as store:
        token = await lease_of(store)
        await store.commit(Batch(runs=[a_run("before")]), token)
        pages = await store._writer.run(
            lambda database: database.execute("PRAGMA page_count").fetchone()[0]
        )
        await store._writer.run(
            lambda database: database.execute(f"PRAGMA max_page_count = {pages}").fetchone()
        )
        many = [a_run(f"run-{n}", workflow="w" * 1_000) for n in range(100)]
        with pytest.raises(StoreFullError) as caught:
            await store.commit(Batch(runs=many), token)
        assert str(path) in str(caught.value)
        assert await store.load("run-0") is None
        await store._writer.run(
            lambda database: database.execute("PRAGMA max_page_count = 100000").fetchone()
        )
        await store.commit(Batch(runs=many), token)
        assert await store.load("run-0") is not None


def test_no_space_for_a_directory_is_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(StoreFullError), translated_errors(tmp_path / "db"):
        raise OSError(errno.ENOSPC, "No space left on device")


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "db")
    async with store:
        pass
    with pytest.raises(StoreError, match="is closed"):
        await store.load("a")


async def test_a_batch_of_many_rows_of_different_shapes_is_stored_as_it_is(tmp_path: Path) -> None:
    run = a_run("r")
    checkpoints = [
        a_checkpoint("r", seq, output=Raw(b"%d" % seq) if seq % 3 else UNSET) for seq in range(150)
    ]
    async with SqliteStore(tmp_path / "db") as store:
        token = await lease_of(store)
        await store.commit(Batch(runs=[run], checkpoints=checkpoints), token)
        assert await store.load("r") == RunState(run, checkpoints)
