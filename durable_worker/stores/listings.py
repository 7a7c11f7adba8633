"""Listings of one tenant's runs, as an operator tells them."""

from collections.abc import Sequence

from msgspec.structs import replace

from durable_worker.errors import RequestRefusedError
from durable_worker.protocol.runs import RunPage, RunQuery, RunRecord
from durable_worker.stores.attributes import check_searchable
from durable_worker.stores.base import DEFAULT_LIST_LIMIT, RunCursor, Store
from durable_worker.stores.records import LAST_SEQ, Run
from durable_worker.stores.views import run_record

MOST_ON_A_PAGE = 1_000
"""Runs on one page, whatever was asked for."""


class Listings:
    def __init__(self, store: Store, *, namespace: str) -> None:
        self._store = store
        self._namespace = namespace

    async def records(self, query: RunQuery) -> list[RunRecord]:
        """Raises `RequestRefusedError` for attributes by which nothing is found, as does `page`."""
        check_searchable(query)
        return await self._told(
            await self._store.list_runs(replace(query, namespace=self._namespace))
        )

    async def page(self, query: RunQuery, *, after: str | None) -> RunPage:
        """Raises `RequestRefusedError` for what is no cursor."""
        check_searchable(query)
        limit = min(query.limit or DEFAULT_LIST_LIMIT, MOST_ON_A_PAGE)
        wanted = replace(query, namespace=self._namespace, limit=limit + 1, offset=None)
        cursor = None if after is None else _cursor(after)
        found = await self._store.list_runs(wanted, after=cursor)
        page = found[:limit]
        behind = f"{page[-1].created_at}:{page[-1].id}" if len(found) > limit else None
        return RunPage(runs=await self._told(page), next=behind)

    async def _told(self, runs: Sequence[Run]) -> list[RunRecord]:
        wakes = await self._store.next_wakes([each.id for each in runs])
        return [run_record(each, wake_at=wakes.get(each.id)) for each in runs]


def _cursor(text: str) -> RunCursor:
    created_at, _, run_id = text.partition(":")
    is_instant = created_at.isascii() and created_at.isdecimal() and len(created_at) <= 16
    if not run_id or not is_instant or int(created_at) > LAST_SEQ:
        raise RequestRefusedError(
            f"{text[:80]!r} is no cursor of a listing; pass on the `next` of the page before",
            code="bad-cursor",
        )
    return RunCursor(int(created_at), run_id)
