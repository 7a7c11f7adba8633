"""What one store holds, written and read into another: nothing of it may change."""

from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from msgspec import Raw
from msgspec.structs import replace

from durable_worker.errors import PayloadError, StoreError
from durable_worker.protocol.failure import Failure
from durable_worker.stores import moving
from durable_worker.stores.address import MysqlAddress, PostgresAddress
from durable_worker.stores.base import Batch
from durable_worker.stores.dumps import AnyRow, DumpableStore
from durable_worker.stores.inputs import CancelRequested, SignalSent
from durable_worker.stores.memory import MemoryStore
from durable_worker.stores.moving import export, take_in
from durable_worker.stores.mysql import MysqlStore
from durable_worker.stores.postgres import PostgresStore
from durable_worker.stores.records import DeadLetter, OutboxRow, SignalRecord
from durable_worker.stores.sqlite import SqliteStore
from tests.conformance.stores.samples import (
    FULL_CHECKPOINT,
    FULL_RUN,
    NOW,
    a_checkpoint,
    a_run,
    lease_of,
)
from tests.database import Mysql, Postgres
from tests.database.mysql import made_database
from tests.database.schemas import made_schema

pytestmark = pytest.mark.anyio

KINDS = ["memory", "sqlite", "postgres", "mysql"]

CONTENT = Batch(
    runs=[
        FULL_RUN,
        a_run("a\x00b", input=Raw(b'{"a":\r\n 1}'), tags=("\x01", "\x00")),
        a_run("", tags=("",)),
        a_run("z", output=Raw(b'"\xff"'), error=Failure(message="", details=Raw(b"[\n]"))),
    ],
    checkpoints=[
        FULL_CHECKPOINT,
        a_checkpoint("", 0),
        *(a_checkpoint("a\x00b", seq, input=Raw(b"[1,\n2]")) for seq in range(1_300)),
    ],
    signals=[
        SignalRecord(id="", namespace="default", name="", received_at=NOW),
        SignalRecord(id="s1", namespace="default", name="go", received_at=NOW),
        SignalRecord(
            id="s2", namespace="n", name="\x00", payload=Raw(b"1"), received_at=NOW, consumed_at=NOW
        ),
    ],
    outbox_added=[
        OutboxRow("", "z"),
        OutboxRow("run-ü#3", "run-ü"),
        OutboxRow("run-ü:4:3", "run-ü", 4, 3),
    ],
    inbox_added=[SignalSent(signal_id="s3", name="go"), CancelRequested(run_id="z")],
    dead_letters=[
        DeadLetter(id="", received_at=NOW, reason="", body=b""),
        DeadLetter(id="d", received_at=NOW, reason="bad", body=b"\xff\x00\n", headers={"a": "b"}),
    ],
)


@pytest.fixture
def other_schema(postgres: Postgres) -> Iterator[PostgresAddress]:
    with made_schema(postgres) as address:
        yield address


@pytest.fixture
def other_mysql_database(mysql: Mysql) -> Iterator[MysqlAddress]:
    with made_database(mysql) as address:
        yield address


@pytest.fixture(params=KINDS)
async def source(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[DumpableStore]:
    async with _made(request, tmp_path / "source") as store:
        token = await lease_of(store)
        await store.commit(CONTENT, token)
        await store.release_lease(token)
        yield store


@pytest.fixture(params=KINDS)
async def target(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[DumpableStore]:
    async with _made(request, tmp_path / "target", prefix="other_") as store:
        yield store


def _made(request: pytest.FixtureRequest, path: Path, *, prefix: str = "") -> DumpableStore:
    match request.param:
        case "memory":
            return MemoryStore()
        case "sqlite":
            return SqliteStore(path)
        case "postgres":
            return PostgresStore(request.getfixturevalue(f"{prefix}schema"))
        case _:
            return MysqlStore(request.getfixturevalue(f"{prefix}mysql_database"))


async def rows_of(store: DumpableStore) -> list[AnyRow]:
    return [row async for page in store.dump() for row in page]


async def lines_of(store: DumpableStore) -> list[bytes]:
    written: list[bytes] = []
    await export(store, written.append, release="1.2.3")
    return b"".join(written).splitlines(keepends=True)


async def test_what_is_exported_and_imported_is_the_same(
    source: DumpableStore, target: DumpableStore
) -> None:
    before = await rows_of(source)
    lines = await lines_of(source)
    assert len(lines) == len(before) + 2
    for line in lines:
        line.decode()
    done = await take_in(target, lines)
    assert (done.runs, done.rows) == (4, len(before))
    assert await rows_of(target) == before
    assert await lines_of(target) == lines


async def some_lines(*runs: str) -> list[bytes]:
    async with MemoryStore() as store:
        token = await lease_of(store)
        checkpoints = [a_checkpoint(run_id, seq) for run_id in runs for seq in range(2)]
        await store.commit(
            Batch(runs=[a_run(each) for each in runs], checkpoints=checkpoints), token
        )
        return await lines_of(store)


async def refusal(store: DumpableStore, lines: Sequence[bytes]) -> str:
    with pytest.raises((StoreError, PayloadError)) as caught:
        await take_in(store, lines)
    return str(caught.value)


async def test_a_store_that_holds_something_is_left_alone_unless_it_is_to_be_merged(
    target: DumpableStore,
) -> None:
    token = await lease_of(target, now=0)
    old = Batch(
        runs=[a_run("a", workflow="old"), a_run("kept")],
        checkpoints=[a_checkpoint("a", 7), a_checkpoint("kept", 0)],
    )
    await target.commit(old, token)
    await target.release_lease(token)
    before = await rows_of(target)
    lines = await some_lines("a", "b")
    assert "not empty" in await refusal(target, lines)
    assert await rows_of(target) == before
    await take_in(target, lines, is_merging=True)
    assert await rows_of(target) == [
        a_run("a"),
        a_checkpoint("a", 0),
        a_checkpoint("a", 1),
        a_run("b"),
        a_checkpoint("b", 0),
        a_checkpoint("b", 1),
        a_run("kept"),
        a_checkpoint("kept", 0),
    ]


async def test_nothing_is_imported_while_an_operator_works(
    target: DumpableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await lease_of(target)
    monkeypatch.setattr(moving, "_now", lambda: NOW + 1)
    assert "an operator works on the database (process 1 on here)" in await refusal(
        target, await some_lines("a")
    )


async def test_the_lease_is_free_after_an_import_that_failed(target: DumpableStore) -> None:
    await refusal(target, [b"{}\n"])
    await lease_of(target)


BAD = {
    "nothing at all": (lambda lines: [], "line 1 of the export: the export ends here"),
    "something else": (lambda lines: [b'{"a": 1}\n'], "does not begin like an export"),
    "no JSON": (lambda lines: [b"hello\n"], "line 1 of the export: it is not a line"),
    "cut off": (lambda lines: lines[:-1], "line 5 of the export: the export ends here"),
    "cut off in a line": (lambda lines: [*lines[:2], lines[2][:9]], "line 3 of the export"),
    "a row lost": (lambda lines: [lines[0], *lines[2:]], "counts 3 rows, but 2 came before"),
    "a row too many": (lambda lines: [*lines, lines[1]], "something after the line that ends"),
    "a newer format": (
        lambda lines: [lines[0].replace(b'"version":1', b'"version":2'), *lines[1:]],
        "format version 2 (of durable-worker 1.2.3), this release knows version 1: upgrade",
    ),
    "a row of a newer release": (
        lambda lines: [lines[0], b'{"schedule":{}}\n', *lines[1:]],
        "line 2 of the export: it holds no row that this release knows",
    ),
}


@pytest.mark.parametrize("name", BAD)
async def test_what_is_no_export_is_refused_with_the_line(name: str) -> None:
    spoil, part = BAD[name]
    async with MemoryStore() as store:
        assert part in await refusal(store, spoil(await some_lines("a")))


async def test_the_lines_are_these() -> None:
    """Whoever reads an export relies on them."""
    run = replace(a_run("a"), input=Raw(b'{"n":1}'))
    async with MemoryStore() as store:
        token = await lease_of(store)
        await store.commit(Batch(runs=[run], checkpoints=[a_checkpoint("a", 0)]), token)
        assert await lines_of(store) == [
            b'{"header":{"format":"durable-worker-export","version":1,"release":"1.2.3"}}\n',
            b'{"run":{"id":"a","workflow":"w","version":"1","namespace":"default","partition":null,'
            b'"status":"running","input":{"n":1},"error":null,"parent":null,"tags":[],'
            b'"created_at":1700000000000,"updated_at":1700000000000,"turn_no":0,"task_id":null,'
            b'"is_dirty":false,"recoveries":0,"ordered":-1}}\n',
            b'{"checkpoint":{"run_id":"a","seq":0,"kind":"call","name":"step","status":"pending",'
            b'"error":null,"attempt":1,"retry":null,"partition":null,"fires_at":null,'
            b'"enqueued_at":1700000000000,"started_at":null,"finished_at":null,"events":[],'
            b'"parallel_group":null,"recoveries":0,"order":null}}\n',
            b'{"end":{"rows":2}}\n',
        ]
