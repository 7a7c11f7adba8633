"""The rows by which runs are found: no more than there is to be found by, however it changes."""

import pytest
from msgspec import Raw

from durable_worker.stores.address import PostgresAddress, ServerAddress
from durable_worker.stores.base import Batch
from durable_worker.stores.mysql import MysqlStore
from durable_worker.stores.postgres import PostgresStore
from durable_worker.stores.records import Run
from tests.conformance.stores.samples import NOW, a_run, lease_of

pytestmark = pytest.mark.anyio


async def labels_in(store: PostgresStore | MysqlStore) -> list[tuple[str, str]]:
    columns = "SELECT id, tag FROM"
    if isinstance(store, PostgresStore):
        rows = await store._database.fetch(f"{columns} run_tags")
        return sorted((run_id, tag) for run_id, tag in rows)
    answer = await store._database.ask(f"{columns} durable_run_tags".encode())
    return sorted((run_id.decode(), tag.decode()) for run_id, tag in answer.rows)


def filed(run_id: str, attributes: bytes, *, created_at: int = NOW) -> Run:
    told = Raw(attributes)
    return a_run(run_id, tags=("vip",), search_attributes=told, created_at=created_at)


def a_store(database: ServerAddress) -> PostgresStore | MysqlStore:
    is_postgres = isinstance(database, PostgresAddress)
    return PostgresStore(database) if is_postgres else MysqlStore(database)


async def test_what_a_run_is_no_longer_found_by_is_deleted(database: ServerAddress) -> None:
    async with a_store(database) as store:
        token = await lease_of(store)
        began = rb'{"stage": "new", "of": ["a", "b", "\u0000"]}'
        await store.commit(Batch(runs=[filed("a", began), filed("b", began)]), token)
        other = ["vip", '\x1fstage="new"', '\x1fof="a"', '\x1fof="b"', '\x1fof="\\u0000"']
        for attributes, labels in (
            (b'{"stage": "paid", "of": ["b"]}', ['\x1fstage="paid"', '\x1fof="b"']),
            (b'{"stage": "paid", "of": ["b"]}', ['\x1fstage="paid"', '\x1fof="b"']),
            (b'{"of": ["b", "c"]}', ['\x1fof="b"', '\x1fof="c"']),
            (b"{}", []),
        ):
            await store.commit(Batch(runs=[filed("a", attributes)]), token)
            expected = [("a", each) for each in ("vip", *labels)] + [("b", each) for each in other]
            assert await labels_in(store) == sorted(expected)


async def test_a_run_in_the_place_of_another_leaves_nothing_of_that(
    database: ServerAddress,
) -> None:
    async with a_store(database) as store:
        token = await lease_of(store)
        for later in range(3):
            run = filed("a", b'{"stage": "new"}', created_at=NOW + later)
            await store.commit(Batch(runs=[run]), token)
        assert await labels_in(store) == [("a", '\x1fstage="new"'), ("a", "vip")]
