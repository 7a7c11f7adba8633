"""By what runs are found: tags and search attributes, letter for letter and as they are now."""

import pytest
from msgspec import Raw

from durable_worker.protocol.runs import RunQuery
from durable_worker.stores.base import Store
from tests.conformance.stores.samples import a_run, keep

pytestmark = pytest.mark.anyio

ODD = ["go", "go\x00", "go\x00now", "\x00", "", "\\u0000", "go\\u0000", 'go"', "\x01", "ü"]


async def found(store: Store, query: RunQuery) -> list[str]:
    listed = sorted(each.id for each in await store.list_runs(query))
    assert sum((await store.facets(query)).statuses.values()) == len(listed)
    return listed


async def test_a_tag_finds_the_runs_that_have_it_letter_for_letter(store: Store) -> None:
    await keep(store, *(a_run(f"r{n}", tags=("all", tag)) for n, tag in enumerate(ODD)))
    for n, tag in enumerate(ODD):
        assert await found(store, RunQuery(tag=tag)) == [f"r{n}"], tag


async def test_an_attribute_finds_the_runs_that_have_it_letter_for_letter(store: Store) -> None:
    spelled = [(key, Raw(b'{"%b": "x"}' % _escaped(key))) for key in ODD]
    runs = [a_run(f"r{n}", search_attributes=each) for n, (_, each) in enumerate(spelled)]
    await keep(store, *runs)
    for n, (key, _) in enumerate(spelled):
        assert await found(store, RunQuery(search_attributes={key: "x"})) == [f"r{n}"], key


def _escaped(text: str) -> bytes:
    return b"".join(b"\\u%04x" % ord(letter) for letter in text)
