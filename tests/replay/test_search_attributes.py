"""Bodies that say by what their runs are found."""

from typing import Any

import pytest
from msgspec import Raw

from durable_worker import WorkflowContext
from durable_worker.errors import PayloadError, UnsupportedByOperatorError
from durable_worker.protocol.commands import RecordStep
from durable_worker.replay.operations import ORDERED_HISTORY, SEARCH_ATTRIBUTES
from tests.replay.model import ModelOperator, turn


def test_they_are_recorded_once_where_the_body_sets_them() -> None:
    async def body(ctx: WorkflowContext) -> None:
        ctx.upsert_search_attributes({"stage": "paid", "sizes": ["s", "m"], "old": None})
        await ctx.step("ship")
        ctx.upsert_search_attributes({"stage": "shipped"})

    operator = ModelOperator(capabilities=[SEARCH_ATTRIBUTES, ORDERED_HISTORY])
    name = "durable:search-attributes"
    first = RecordStep(
        seq=0, name=name, output=Raw(b'{"stage":"paid","sizes":["s","m"],"old":null}')
    )
    assert turn(body, operator).commands[0] == first
    operator.resolve(1)
    decision = turn(body, operator)
    assert decision.commands == [RecordStep(seq=2, name=name, output=Raw(b'{"stage":"shipped"}'))]


@pytest.mark.parametrize("stated", [None, [ORDERED_HISTORY]])
def test_without_the_capability_it_is_refused_where_it_is_asked_for(
    stated: list[str] | None,
) -> None:
    async def body(ctx: WorkflowContext) -> str:
        with pytest.raises(UnsupportedByOperatorError) as refused:
            ctx.upsert_search_attributes({"a": 1})
        return refused.value.capability

    decision = turn(body, ModelOperator(capabilities=stated))
    assert (decision.commands, decision.output) == ([], Raw(b'"search-attributes"'))


@pytest.mark.parametrize("value", [{"nested": 1}, [["deep"]], object(), float("nan")])
def test_what_no_run_is_found_by_is_refused(value: Any) -> None:
    async def body(ctx: WorkflowContext) -> str:
        with pytest.raises(PayloadError, match=r"search attributes|no JSON form"):
            ctx.upsert_search_attributes({"a": value})
        return "refused"

    decision = turn(body, ModelOperator(capabilities=[SEARCH_ATTRIBUTES]))
    assert (decision.commands, decision.output) == ([], Raw(b'"refused"'))
