"""Every statement goes along an index: none reads a table, or sorts what it could read in order."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest
from msgspec import UNSET, Raw

from durable_worker.protocol.runs import RunQuery, RunStatus
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.address import MysqlAddress
from durable_worker.stores.base import Batch, RunCursor
from durable_worker.stores.mysql import MysqlStore, dumping
from durable_worker.stores.mysql import store as statements
from durable_worker.stores.mysql.letters import letters_statement
from durable_worker.stores.mysql.listing import count_statement, list_statement
from durable_worker.stores.mysql.statements import Value, filled
from durable_worker.stores.records import Checkpoint, DeadLetter, OutboxRow, Run, SignalRecord
from tests.conformance.stores.samples import NOW, a_checkpoint, a_run, lease_of
from tests.database import Mysql
from tests.database.mysql import made_database
from tests.servers import completed

pytestmark = pytest.mark.anyio

RUNS = 10_000
TABLES = ("runs", "run_tags", "checkpoints", "signals", "outbox", "dead_letters")


def some_run(number: int) -> Run:
    return a_run(
        f"r{number}",
        workflow=f"w{number % 10}",
        namespace="acme" if number % 5 else "default",
        status=RunStatus.SUSPENDED if number % 100 else RunStatus.FAILED,
        tags=("vip",) if number % 20 == 0 else (),
        search_attributes=Raw(b'{"stage": "paid"}') if number % 20 == 0 else UNSET,
        created_at=NOW + number,
    )


def some_checkpoint(number: int) -> Checkpoint:
    if number % 2:
        return a_checkpoint(f"r{number}", 0, kind=HistoryKind.TIMER, fires_at=NOW + number % 1_000)
    return a_checkpoint(f"r{number}", 0, kind=HistoryKind.SIGNAL, name="go", enqueued_at=NOW)


@pytest.fixture(scope="module")
def filled_database(mysql: Mysql) -> Iterator[MysqlAddress]:
    with made_database(mysql) as database:
        completed(fill(database))
        for table in TABLES:
            mysql.execute(f"ANALYZE TABLE {database.database}.durable_{table}")
        yield database


@pytest.fixture
async def full(filled_database: MysqlAddress) -> AsyncIterator[MysqlStore]:
    async with MysqlStore(filled_database) as store:
        yield store


async def fill(database: MysqlAddress) -> None:
    async with MysqlStore(database) as store:
        token = await lease_of(store)
        for first in range(0, RUNS, 1_000):
            numbers = range(first, first + 1_000)
            await store.commit(
                Batch(
                    runs=[some_run(each) for each in numbers],
                    checkpoints=[some_checkpoint(each) for each in numbers],
                    signals=[
                        SignalRecord(id=f"s{n}", namespace="acme", name="go", received_at=n)
                        for n in numbers
                    ],
                    outbox_added=[OutboxRow(f"r{n}#1", f"r{n}") for n in numbers],
                    dead_letters=[
                        DeadLetter(
                            id=f"d{n}", received_at=n, reason="bad", body=b"", run_id=f"r{n}"
                        )
                        for n in numbers
                    ],
                ),
                token,
            )


@dataclass(frozen=True, slots=True)
class Access:
    """How a statement reads one table."""

    table: str
    kind: str
    index: str | None
    extra: str


async def accesses_of(store: MysqlStore, statement: bytes) -> list[Access]:
    """MySQL tells of partitions and of what is filtered, too."""
    rows = await store._database.screen(b"EXPLAIN " + statement)
    return [_access_in([_text(each) for each in row]) for row in rows]


def _access_in(row: list[str | None]) -> Access:
    kind, _, index = row[4:7] if len(row) == 12 else row[3:6]
    return Access(row[2] or "", kind or "", index, row[-1] or "")


def _text(value: bytes | int | None) -> str | None:
    return value.decode() if isinstance(value, bytes) else None if value is None else str(value)


STATEMENTS: dict[str, tuple[list[Value], str]] = {
    "get_runs": ([["r1", "r2"]], "PRIMARY"),
    "get_checkpoints": ([["r1", "r2"]], "PRIMARY"),
    "due_timers": ([NOW + 1_000, 100], "checkpoints_due"),
    "next_wakes": ([["r1", "r2"]], "checkpoints_waking"),
    "waiters": (["acme", "go", 8], "checkpoints_waiting"),
    "steps_out": ([], "checkpoints_step_out"),
    "buffered_signals": (["acme", "go", 8], "signals_buffered"),
    "get_signal": (["s1"], "PRIMARY"),
    "get_inbox": ([0, 100], "PRIMARY"),
    "get_outbox": ([], "PRIMARY"),
    "turns_out": ([], "runs_turn_out"),
    "unserved_runs": (["w1", 100], "runs_unserved"),
    "unserved_workflows": ([], "runs_unserved"),
    "get_dead_letter": (["d1"], "PRIMARY"),
    "namespaces": ([], "runs_by_status"),
    "forget_signals": ([NOW], "signals_consumed"),
    "remove_outbox": ([["r1#1", "r2#1"]], "PRIMARY"),
    "remove_inbox": ([[1, 2]], "PRIMARY"),
    "remove_checkpoint": (["r1", 0], "PRIMARY"),
    "forget_older": ([0], "dead_letters_by_age"),
    "first_surplus": ([5], "dead_letters_by_age"),
}


@pytest.mark.parametrize("name", STATEMENTS)
async def test_what_the_operator_asks_goes_along_an_index(full: MysqlStore, name: str) -> None:
    values, index = STATEMENTS[name]
    statement = filled(statements._sql[name], *values)
    accesses = await accesses_of(full, statement)
    assert accesses[0].index == index, accesses
    assert all(each.kind != "ALL" for each in accesses), accesses
    assert all("filesort" not in each.extra for each in accesses), accesses


async def test_the_next_timer_is_at_the_end_of_an_index(full: MysqlStore) -> None:
    (access,) = await accesses_of(full, statements._sql["next_timer"])
    assert "optimized away" in access.extra


@pytest.mark.parametrize("name", ["runs", "signals", "outbox", "dead_letters"])
async def test_an_export_goes_along_the_keys(full: MysqlStore, name: str) -> None:
    (access,) = await accesses_of(full, filled(dumping._sql[name], "r5", None, 500))
    assert (access.kind, access.index) == ("range", "PRIMARY"), access


QUERIES = {
    "all": (RunQuery(), "runs_by_age"),
    "namespace": (RunQuery(namespace="default"), "runs_of_namespace"),
    "status": (RunQuery(namespace="default", status=RunStatus.FAILED), "runs_by_status"),
    "rare status": (RunQuery(namespace="default", status=RunStatus.DEAD), "runs_by_status"),
    "statuses": (
        RunQuery(namespace="default", statuses=[RunStatus.SUSPENDED, RunStatus.RUNNING]),
        "runs_by_status",
    ),
    "workflow": (RunQuery(namespace="default", workflow="w5"), "runs_by_workflow"),
    "workflow and status": (
        RunQuery(namespace="default", workflow="w5", status=RunStatus.SUSPENDED),
        "runs_by_workflow",
    ),
    "tag": (RunQuery(namespace="default", tag="vip"), "PRIMARY"),
    "tag and workflow": (RunQuery(namespace="default", tag="vip", workflow="w0"), "PRIMARY"),
    "status in every namespace": (RunQuery(status=RunStatus.FAILED), "runs_by_status"),
    "attribute": (
        RunQuery(namespace="default", search_attributes={"stage": "paid"}),
        "PRIMARY",
    ),
    "tag, attribute and workflow": (
        RunQuery(
            namespace="default", tag="vip", search_attributes={"stage": "paid"}, workflow="w0"
        ),
        "PRIMARY",
    ),
    "attribute in every namespace": (RunQuery(search_attributes={"stage": "paid"}), "PRIMARY"),
    "tag in every namespace": (RunQuery(tag="vip"), "PRIMARY"),
}

MIDDLE = RunCursor(created_at=NOW + RUNS // 2, run_id=f"r{RUNS // 2}")
PAGES = pytest.mark.parametrize("after", [None, MIDDLE], ids=["first page", "page in the middle"])


@PAGES
@pytest.mark.parametrize("name", QUERIES)
async def test_runs_are_listed_along_an_index(
    full: MysqlStore, name: str, after: RunCursor | None
) -> None:
    query, index = QUERIES[name]
    statement = list_statement(query, after, ["acme", "default"])
    assert statement is not None
    accesses = [
        each for each in await accesses_of(full, statement) if not each.table.startswith("<")
    ]
    assert index in {each.index for each in accesses}, accesses
    assert all(each.kind != "ALL" for each in accesses), accesses


@PAGES
@pytest.mark.parametrize("name", QUERIES)
async def test_listing_reads_a_page_and_not_the_table(
    full: MysqlStore, name: str, after: RunCursor | None
) -> None:
    query, _ = QUERIES[name]
    before = await rows_read(full)
    found = await full.list_runs(query, after=after)
    read = await rows_read(full) - before
    assert len(found) <= 100
    assert read <= 3_000, read


async def rows_read(store: MysqlStore) -> int:
    """So far, by the session that lists."""
    rows = await store._database.screen(b"SHOW SESSION STATUS LIKE 'Handler_read%'")
    return sum(int(count) for _, count in rows)


async def test_counting_reads_an_index_alone(full: MysqlStore) -> None:
    for query in (RunQuery(), RunQuery(namespace="default"), RunQuery(status=RunStatus.FAILED)):
        accesses = await accesses_of(full, count_statement(query))
        assert [each.index for each in accesses] == ["runs_by_workflow"]
        assert all("Using index" in each.extra for each in accesses)


LETTERS = {
    "all": ({}, "dead_letters_by_age"),
    "namespace": ({"namespace": "default"}, "dead_letters_of_namespace"),
    "run": ({"run_id": "r7"}, "dead_letters_of_run"),
    "run and namespace": ({"run_id": "r7", "namespace": "default"}, "dead_letters_of_run"),
}


@pytest.mark.parametrize("after", [None, "d5000"])
@pytest.mark.parametrize("name", LETTERS)
async def test_dead_letters_are_listed_along_an_index(
    full: MysqlStore, name: str, after: str | None
) -> None:
    asked, index = LETTERS[name]
    filters: dict[str, str | None] = {"namespace": None, "run_id": None, **asked}
    statement = letters_statement(limit=10, after=after, **filters)
    accesses = await accesses_of(full, statement)
    assert accesses[-1].index == index, accesses
    before = await rows_read(full)
    await full._database.screen(statement)
    assert await rows_read(full) - before <= 100
