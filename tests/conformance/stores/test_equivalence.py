"""Each database against the memory store: whatever happens, both tell the same."""

import asyncio
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from msgspec import UNSET, Raw
from msgspec.structs import replace

from durable_worker.errors import LeaseLostError
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.runs import RunQuery, RunStatus
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.address import MysqlAddress, PostgresAddress
from durable_worker.stores.base import Batch, Lease, LeaseHolder, RunCursor, Store
from durable_worker.stores.inputs import CancelRequested, SignalSent
from durable_worker.stores.memory import MemoryStore
from durable_worker.stores.mysql import MysqlStore
from durable_worker.stores.postgres import PostgresStore
from durable_worker.stores.records import (
    Checkpoint,
    CheckpointStatus,
    DeadLetter,
    OutboxRow,
    Run,
    SignalRecord,
)
from durable_worker.stores.sqlite import SqliteStore
from tests.conformance.stores.samples import ME, NOW, TTL
from tests.database import Postgres
from tests.database.mysql import empty_tables
from tests.database.schemas import empty

T = TypeVar("T")

ids = st.sampled_from(["a", "b\x00", "ü#1"])
names = st.sampled_from(["go", "stop"])
tags = st.sampled_from(["go", "go\x00", "stop"])
attributes = st.sampled_from(
    [UNSET, *map(Raw, (b'{"k": "go"}', b'{"k": ["go", 1.0], "l": true}', rb'{"k\u0000": "go"}'))]
)
namespaces = st.sampled_from(["default", "acme"])
times = st.integers(NOW, NOW + 5)
payloads = st.sampled_from([UNSET, Raw(b"null"), Raw(b'{"a": 1.0}')])
errors = st.none() | st.builds(Failure, message=st.text(max_size=3).filter(str.isprintable))

HOMES = {"a": "default", "b\x00": "acme", "ü#1": "acme"}
"""A run never changes its namespace."""

runs = st.builds(
    Run,
    id=ids,
    workflow=names,
    version=st.none() | st.just("1"),
    namespace=st.just(""),
    status=st.sampled_from(RunStatus),
    input=payloads,
    output=payloads,
    error=errors,
    tags=st.lists(tags, max_size=2).map(tuple),
    search_attributes=attributes,
    created_at=times,
    updated_at=times,
    task_id=st.none(),
).map(lambda run: replace(run, namespace=HOMES[run.id]))
checkpoints = st.builds(
    Checkpoint,
    run_id=ids,
    seq=st.integers(0, 3),
    kind=st.sampled_from(HistoryKind),
    name=names,
    status=st.sampled_from(CheckpointStatus),
    input=payloads,
    output=payloads,
    error=errors,
    fires_at=st.none() | times,
    enqueued_at=times,
)
signals = st.builds(
    SignalRecord,
    id=ids,
    namespace=namespaces,
    name=names,
    payload=payloads,
    received_at=times,
    consumed_at=st.none() | times,
)
rows = st.builds(OutboxRow, ids, ids, st.none() | st.integers(0, 3))
inputs = st.builds(CancelRequested, run_id=ids) | st.builds(SignalSent, signal_id=ids, name=names)
letters = st.builds(
    DeadLetter,
    id=ids,
    received_at=times,
    reason=names,
    body=st.binary(max_size=3),
    namespace=namespaces,
    run_id=st.none() | ids,
    seq=st.none() | st.integers(-2, 2),
    redriven_at=st.none() | times,
)
batches = st.builds(
    Batch,
    checkpoints_removed=st.lists(st.tuples(ids, st.integers(0, 3)), max_size=2),
    dead_letters=st.lists(letters, max_size=2, unique_by=lambda each: each.id),
    runs=st.lists(runs, max_size=3, unique_by=lambda each: each.id),
    checkpoints=st.lists(checkpoints, max_size=4),
    signals=st.lists(signals, max_size=2),
    outbox_added=st.lists(rows, max_size=2),
    outbox_removed=st.lists(ids, max_size=1),
    inbox_added=st.lists(inputs, max_size=1),
    inbox_removed=st.lists(st.integers(1, 5), max_size=1),
)


class Stores(RuleBasedStateMachine):
    """`open_store` opens the same database each time."""

    def __init__(self, open_store: Callable[[], Store]) -> None:
        super().__init__()
        self._open = open_store
        self._loop = asyncio.new_event_loop()
        self._memory = MemoryStore()
        self._database = self._open()
        self._do(self._database.__aenter__())
        self._now = NOW
        self._token = 0

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)

    def _both(self) -> tuple[Store, Store]:
        return self._memory, self._database

    @rule(batch=batches)
    def commit(self, batch: Batch) -> None:
        # Checkpoints belong to runs that exist.
        known = {each.id for each in batch.runs} | set(self._memory._runs)
        kept = [each for each in batch.checkpoints if each.run_id in known]
        fields = {name: getattr(batch, name) for name in Batch.__slots__}
        batch = Batch(**{**fields, "checkpoints": kept})
        outcomes = []
        for store in self._both():
            try:
                self._do(store.commit(batch, self._token))
                outcomes.append(True)
            except LeaseLostError:
                outcomes.append(False)
        assert outcomes[0] == outcomes[1]

    @rule(later=st.integers(0, 2 * TTL))
    def acquire(self, later: int) -> None:
        self._now += later
        outcomes: list[Lease | LeaseHolder] = [
            self._do(store.acquire_lease(ME, now=self._now, ttl=TTL)) for store in self._both()
        ]
        assert outcomes[0] == outcomes[1]
        if isinstance(outcomes[0], Lease):
            self._token = outcomes[0].token

    @rule()
    def release(self) -> None:
        for store in self._both():
            self._do(store.release_lease(self._token))

    @rule(before=times, kept=st.integers(0, 3))
    def forget(self, before: int, kept: int) -> None:
        outcomes: list[int | None] = []
        for store in self._both():
            try:
                forgetting = store.forget_dead_letters(
                    self._token, received_before=before, kept=kept
                )
                outcomes.append(self._do(forgetting))
            except LeaseLostError:
                outcomes.append(None)
        assert outcomes[0] == outcomes[1]

    @rule(value=inputs)
    def submit(self, value: CancelRequested | SignalSent) -> None:
        given = [self._do(store.submit(value)) for store in self._both()]
        assert given[0] == given[1]

    @rule()
    def reopen(self) -> None:
        self._do(self._database.__aexit__(None, None, None))
        self._database = self._open()
        self._do(self._database.__aenter__())

    @invariant()
    def both_tell_the_same(self) -> None:
        memory, database = (self._do(_everything(store)) for store in self._both())
        assert memory == database

    def teardown(self) -> None:
        self._do(self._database.__aexit__(None, None, None))
        self._loop.close()


async def _everything(store: Store) -> list[Any]:
    found: list[Any] = [
        await store.load_many(["a", "b\x00", "ü#1"]),
        await store.next_timer(),
        await store.due_timers(NOW + 2, limit=3),
        await store.next_wakes(["a", "b\x00"]),
        await store.outbox(),
        await store.pending_work(),
        await store.unserved_workflows(),
        await store.inbox(after=0, limit=9),
        await store.dead_letters(limit=9),
        await store.dead_letters(limit=2, namespace="acme", run_id="a"),
        await store.dead_letters(limit=2, after="b\x00"),
        await store.dead_letter("ü#1"),
    ]
    for name in ("go", "stop"):
        found.append(await store.unserved_runs(name, limit=2))
        for namespace in ("default", "acme"):
            found.append(await store.waiters(namespace, name, limit=2))
            found.append(await store.buffered_signals(namespace, name, limit=2))
    for query in (
        RunQuery(),
        RunQuery(tag="go", namespace=""),
        RunQuery(tag="go", workflow="stop", statuses=[RunStatus.RUNNING, RunStatus.COMPLETED]),
        RunQuery(tag="stop", namespace="acme", offset=1),
        RunQuery(tag="go\x00"),
        RunQuery(search_attributes={"k": "go"}),
        RunQuery(search_attributes={"k\x00": "go"}),
        RunQuery(tag="go", search_attributes={"k": 1, "l": True}, namespace="acme"),
        RunQuery(namespace="acme"),
        RunQuery(namespace="acme", status=RunStatus.FAILED),
        RunQuery(workflow="go", limit=1, offset=1),
        RunQuery(status=RunStatus.RUNNING, statuses=[RunStatus.DEAD]),
    ):
        found.append(await store.list_runs(query))
        found.append(await store.list_runs(query, after=RunCursor(NOW + 3, "a")))
        found.append(await store.facets(query))
    return found


EXAMPLES = settings(max_examples=15, stateful_step_count=15, deadline=None)


def test_sqlite_tells_the_same_as_the_memory_store() -> None:
    with tempfile.TemporaryDirectory() as folder:
        numbers = iter(range(1_000_000))

        def machine() -> Stores:
            path = Path(folder) / str(next(numbers))
            return Stores(lambda: SqliteStore(path))

        run_state_machine_as_test(machine, settings=EXAMPLES)


def test_postgres_tells_the_same_as_the_memory_store(
    postgres: Postgres, schema: PostgresAddress
) -> None:
    def machine() -> Stores:
        empty(postgres, schema)
        return Stores(lambda: PostgresStore(schema))

    run_state_machine_as_test(machine, settings=EXAMPLES)


def test_mysql_tells_the_same_as_the_memory_store(mysql_database: MysqlAddress) -> None:
    def machine() -> Stores:
        empty_tables(mysql_database)
        return Stores(lambda: MysqlStore(mysql_database))

    run_state_machine_as_test(machine, settings=EXAMPLES)
