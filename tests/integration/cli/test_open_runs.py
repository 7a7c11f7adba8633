"""Checking what is open while it grows, ends and moves on; a real operator behind the client."""

from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from durable_worker import Worker, WorkflowContext
from durable_worker.cli.open_runs import OpenRuns
from durable_worker.client import Client
from durable_worker.embedded import Embedded
from durable_worker.errors import RequestRefusedError, RunNotFoundError
from durable_worker.protocol.runs import RunDetail, RunQuery, RunRecord, RunStatus

pytestmark = pytest.mark.anyio

worker, renamed = Worker(), Worker()


@worker.workflow("asking")
async def asking(ctx: WorkflowContext, name: str) -> Any:
    return await ctx.wait_signal(name)


@renamed.workflow("asking")
async def telling(ctx: WorkflowContext, name: str) -> Any:
    return await ctx.step("tell", name)


class Between(Client):
    """A client between which and the operator something happens."""

    def __init__(self, client: Client) -> None:
        self._inner = client
        self.details = 0
        self.pages: list[int] = []

    async def detail(self, run_id: str) -> RunDetail:
        self.details += 1
        return await self._inner.detail(run_id)

    async def list(self, query: RunQuery | None = None) -> Sequence[RunRecord]:
        assert query is not None
        self.pages.append(query.offset or 0)
        return await self._inner.list(query)


async def start(client: Client, count: int) -> None:
    for number in range(count):
        await client.start(asking, f"go:{number}", run_id=f"r{number:03}")
    await rested(client, count)


async def rested(client: Client, count: int) -> None:
    """Until so many runs wait."""
    query = RunQuery(status=RunStatus.SUSPENDED, limit=1_000)
    with anyio.fail_after(20):
        while len(await client.list(query)) < count:  # noqa: ASYNC110 - nothing tells of it
            await anyio.sleep(0.01)


async def test_every_open_run_is_checked_however_many_pages_there_are() -> None:
    async with Embedded(worker) as client:
        await start(client, 230)
        between = Between(client)
        report = await OpenRuns(worker, between).check()
        assert (report.checked, report.ok, report.broken) == (230, 230, [])
        report = await OpenRuns(renamed, client).check()
        assert (report.checked, report.ok) == (230, 0)
        assert [each.run_id for each in report.broken] == [f"r{n:03}" for n in range(230)]
        told = [each.run_id for each in report.broken if each.mismatch and each.mismatch.diff]
        assert told == ["r000"]


async def test_runs_that_slip_through_while_others_end_are_found_by_another_pass() -> None:
    class Shifting(Between):
        async def list(self, query: RunQuery | None = None) -> Sequence[RunRecord]:
            page = await super().list(query)
            is_first_pass = self.pages.count(0) == 1
            return (
                page[30:] if query is not None and query.offset == 100 and is_first_pass else page
            )

    async with Embedded(worker) as client:
        await start(client, 150)
        report = await OpenRuns(worker, Shifting(client)).check()
        assert report.checked == 150


async def test_a_run_that_moved_on_while_it_was_looked_at_is_not_reported() -> None:
    class Late(Between):
        """Tells first how the run stood before it was there at all."""

        async def detail(self, run_id: str) -> RunDetail:
            detail = await super().detail(run_id)
            if self.details == 1:
                (entry,) = detail.timeline
                entry = type(entry)(
                    **{name: getattr(entry, name) for name in entry.__struct_fields__}
                    | {"kind": "call", "name": "other"}
                )
                detail.timeline[:] = [entry]
            return detail

    async with Embedded(worker) as client:
        await start(client, 1)
        between = Late(client)
        report = await OpenRuns(worker, between).check()
        assert (report.checked, report.broken) == (1, [])
        assert between.details == 2


async def test_a_run_that_ended_while_it_was_looked_at_is_not_reported() -> None:
    class Ending(Between):
        async def detail(self, run_id: str) -> RunDetail:
            await self._inner.cancel(run_id)
            await self._inner.wait(run_id)
            return await super().detail(run_id)

    class Vanishing(Between):
        async def detail(self, run_id: str) -> RunDetail:
            raise RunNotFoundError(run_id)

    async with Embedded(worker) as client:
        await start(client, 1)
        for between in (Vanishing(client), Ending(client)):
            report = await OpenRuns(renamed, between).check()
            assert (report.checked, report.broken) == (1, [])


async def test_a_run_that_cannot_be_told_is_reported_and_does_not_stop_the_others() -> None:
    class Refusing(Between):
        async def detail(self, run_id: str) -> RunDetail:
            if run_id == "r000":
                raise RequestRefusedError("the detail has 200 MB", code="payload-too-large")
            return await super().detail(run_id)

    async with Embedded(worker) as client:
        await start(client, 3)
        report = await OpenRuns(worker, Refusing(client)).check()
        assert [(each.run_id, each.message) for each in report.broken] == [
            ("r000", "it cannot be checked: the detail has 200 MB")
        ]
        assert report.ok == 2


async def test_only_runs_of_one_workflow_are_checked_if_asked_to() -> None:
    other = Worker()
    other.workflow("asking")(asking)

    @other.workflow("waiting")
    async def waiting(ctx: WorkflowContext, name: str) -> Any:
        return await ctx.wait_signal(name)

    async with Embedded(other) as client:
        await client.start(waiting, "x")
        await client.start("asking", "y")
        await rested(client, 2)
        assert (await OpenRuns(other, client, workflow="waiting").check()).checked == 1
        report = await OpenRuns(worker, client).check()
        assert [(each.workflow, each.runs) for each in report.skipped] == [("waiting", 1)]
        assert report.checked == 1
