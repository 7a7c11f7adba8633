"""Every statement goes along an index: none reads a table, or sorts what it could read in order."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest
from msgspec import UNSET, Raw
from msgspec.structs import replace

from durable_worker.protocol.runs import RunQuery, RunStatus
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.address import PostgresAddress
from durable_worker.stores.attributes import wanted_labels
from durable_worker.stores.base import Batch, RunCursor, wanted_statuses
from durable_worker.stores.postgres import PostgresStore, writing
from durable_worker.stores.postgres import store as statements
from durable_worker.stores.postgres.listing import list_statement
from durable_worker.stores.records import Checkpoint, DeadLetter, OutboxRow, Run, SignalRecord
from tests.conformance.stores.samples import NOW, a_checkpoint, a_run, lease_of
from tests.database import Postgres
from tests.database.schemas import made_schema
from tests.servers import completed

pytestmark = pytest.mark.anyio

RUNS = 10_000
SHORT = 5
"""Runs on a page, where it counts what is read for it."""


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
def filled_schema(postgres: Postgres) -> Iterator[PostgresAddress]:
    with made_schema(postgres) as schema:
        completed(fill(schema))
        yield schema


@pytest.fixture
async def full(filled_schema: PostgresAddress) -> AsyncIterator[PostgresStore]:
    async with PostgresStore(filled_schema) as store:
        yield store


async def fill(schema: PostgresAddress) -> None:
    async with PostgresStore(schema) as store:
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
                        DeadLetter(id=f"d{n}", received_at=n, reason="bad", body=b"")
                        for n in numbers
                    ],
                ),
                token,
            )
        tables = ("runs", "run_tags", "checkpoints", "signals", "outbox", "dead_letters")
        await analyze(schema, *tables)


async def analyze(schema: PostgresAddress, *tables: str) -> None:
    connection = await asyncpg.connect(schema.dsn)
    for table in tables:
        await connection.execute(f"ANALYZE {schema.schema}.{table}")
    await connection.close()


async def plan_of(store: PostgresStore, statement: str, *values: Any) -> str:
    rows = await store._database.fetch(f"EXPLAIN (COSTS OFF) {statement}", *values)
    return "\n".join(row[0] for row in rows)


async def screen_plan(store: PostgresStore, statement: str, *values: Any) -> str:
    rows = await store._database.screen(f"EXPLAIN (COSTS OFF) {statement}", *values)
    return "\n".join(row[0] for row in rows)


STATEMENTS: dict[str, tuple[list[Any], str]] = {
    "load": ([["r1", "r2"]], "runs_pkey"),
    "due_timers": ([NOW + 1_000, 100], "checkpoints_due"),
    "next_timer": ([], "checkpoints_due"),
    "next_wakes": ([["r1", "r2"]], "checkpoints_waking"),
    "waiters": (["go", "acme", 8], "checkpoints_waiting"),
    "buffered_signals": (["acme", "go", 8], "signals_buffered"),
    "get_signal": (["s1"], "signals_pkey"),
    "get_inbox": ([0, 100], "inbox_pkey"),
    "get_outbox": ([], "outbox_pkey"),
    "unserved_runs": (["w1", 100], "runs_unserved"),
    "unserved_workflows": ([], "runs_unserved"),
    "get_dead_letter": (["d1"], "dead_letters_pkey"),
    "load_newer": ([["r1", "r2"], [1, 0]], "runs_pkey"),
    "ended_runs": ([["r1", "r2"]], "runs_pkey"),
    "own_due_timers": ([1, NOW + 1_000, NOW, 100], "checkpoints_due"),
    "own_next_timer": ([1], "checkpoints_due_at"),
    "owed_by": ([1], "outbox_of_operator"),
}


@pytest.mark.parametrize("name", STATEMENTS)
async def test_what_the_operator_asks_goes_along_an_index(full: PostgresStore, name: str) -> None:
    values, index = STATEMENTS[name]
    plan = await plan_of(full, statements._sql[name], *values)
    assert index in plan, plan
    assert "Seq Scan" not in plan, plan
    assert "Sort" not in plan or name.startswith("load"), plan


async def test_a_commit_finds_every_row_by_its_key(full: PostgresStore) -> None:
    none: list[Any] = []
    plan = await plan_of(full, writing._sql["commit"], 1, 0, *([none] * 13))
    for table in ("runs", "run_tags", "checkpoints", "outbox", "inbox"):
        assert f"Index Scan using {table}_pkey on {table}" in plan, plan
    scanned = {line.split(" on ")[1].split()[0] for line in plan.splitlines() if "Seq Scan" in line}
    assert scanned <= {"lease", "members", "inbox_head"}, plan


QUERIES = {
    "all": (RunQuery(), "runs_by_status"),
    "namespace": (RunQuery(namespace="default"), "runs_by_status"),
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
    "tag": (RunQuery(namespace="default", tag="vip"), "run_tags_pkey"),
    "tag and workflow": (
        RunQuery(namespace="default", tag="vip", workflow="w0"),
        "run_tags_pkey",
    ),
    "status in every namespace": (RunQuery(status=RunStatus.FAILED), "runs_by_status"),
    "attribute": (
        RunQuery(namespace="default", search_attributes={"stage": "paid"}),
        "run_tags_pkey",
    ),
    "tag, attribute and workflow": (
        RunQuery(
            namespace="default", tag="vip", search_attributes={"stage": "paid"}, workflow="w0"
        ),
        "run_tags_pkey",
    ),
    "attribute in every namespace": (
        RunQuery(search_attributes={"stage": "paid"}),
        "run_tags_pkey",
    ),
    "tag in every namespace": (RunQuery(tag="vip"), "run_tags_pkey"),
}


MIDDLE = RunCursor(created_at=NOW + RUNS // 2, run_id=f"r{RUNS // 2}")


@pytest.mark.parametrize("after", [None, MIDDLE], ids=["first page", "page in the middle"])
@pytest.mark.parametrize("name", QUERIES)
async def test_runs_are_listed_along_an_index(
    full: PostgresStore, name: str, after: RunCursor | None
) -> None:
    query, index = QUERIES[name]
    statement, values = list_statement(query, after)
    plan = await screen_plan(full, statement, *values)
    assert index in plan, plan
    assert "Seq Scan" not in plan, plan


async def test_listing_reads_a_page_and_not_the_table(full: PostgresStore) -> None:
    """Counted are rows that are left out in the end, and places of an index that are passed over:
    these would make a page dearer the further down it is."""
    for name, (query, _) in QUERIES.items():
        blocks: list[int] = []
        for after in (None, MIDDLE):
            statement, values = list_statement(replace(query, limit=SHORT), after)
            plan = await measured(full, statement, *values)
            namespaces = 1 if query.namespace is not None else 2
            statuses = 1 if wanted_labels(query) else len(wanted_statuses(query) or RunStatus)
            assert rows_read(plan) <= namespaces * statuses * SHORT, (name, plan)
            blocks.append(blocks_read(plan))
        assert blocks[1] <= blocks[0] + 2, name


async def test_a_status_that_statistics_know_nothing_of_is_not_looked_for_in_the_table(
    postgres: Postgres,
) -> None:
    with made_schema(postgres) as schema:
        async with PostgresStore(schema) as store:
            token = await lease_of(store)
            same = [replace(some_run(n), status=RunStatus.SUSPENDED) for n in range(RUNS)]
            await store.commit(Batch(runs=same), token)
            await analyze(schema, "runs")
            for name in ("rare status", "statuses", "status", "workflow and status"):
                query, _ = QUERIES[name]
                statement, values = list_statement(replace(query, limit=SHORT), None)
                plan = await measured(store, statement, *values)
                assert blocks_read(plan) <= 50, (name, plan)


async def measured(store: PostgresStore, statement: str, *values: Any) -> dict[str, Any]:
    explained = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}"
    rows = await store._database.screen(explained, *values)
    plan: dict[str, Any] = json.loads(rows[0][0])[0]["Plan"]
    return plan


def blocks_read(plan: dict[str, Any]) -> int:
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def rows_read(plan: dict[str, Any]) -> int:
    """By the node that has read most."""
    own = plan["Actual Rows"] * plan["Actual Loops"]
    return max([int(own), *(rows_read(each) for each in plan.get("Plans", []))])
