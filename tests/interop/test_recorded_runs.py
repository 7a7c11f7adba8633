"""Runs of a NestJS operator, as it tells them, against the Python bodies that made them."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import anyio
import pytest

from durable_worker import NondeterminismError, Worker, WorkflowContext
from durable_worker.client import Client, broker_client
from durable_worker.protocol.names import Names
from durable_worker.protocol.runs import RunDetail, RunStatus
from durable_worker.testing import replay_history
from durable_worker.transports.rabbitmq import RabbitTransport
from tests.interop import app
from tests.interop.processes import House

pytestmark = [pytest.mark.anyio, pytest.mark.broker]

PATIENCE = timedelta(seconds=20)


@pytest.fixture
async def client(shared_house: House) -> AsyncIterator[Client]:
    names = Names(prefix=shared_house.prefix)
    transport = RabbitTransport(shared_house.url, names=names)
    async with broker_client(transport, names=names) as client:
        yield client


async def rested(client: Client, run_id: str, *, entries: int) -> RunDetail:
    """The run once it waits, with so many entries in its timeline."""
    with anyio.fail_after(20):
        while True:
            detail = await client.detail(run_id)
            if detail.run.status is RunStatus.SUSPENDED and len(detail.timeline) >= entries:
                return detail
            await anyio.sleep(0.05)


@pytest.mark.parametrize(
    ("workflow", "value"),
    [
        ("py.sum", {"a": 2, "b": 3}),
        ("py.fan", 3),
        ("py.sleeper", 20),
        ("py.retries", "retries"),
        ("py.catches-step", "4000"),
        ("py.failing-child", "4000"),
        ("py.patient", "nobody"),
        ("py.parent", 4),
        ("py.catches-child", "Ada"),
        ("py.stable", "stable"),
        ("py.mixed", "mixed"),
    ],
)
async def test_a_run_that_has_ended_fits_the_body_that_made_it(
    client: Client, workflow: str, value: Any
) -> None:
    value = f"{value}-{uuid4().hex}" if isinstance(value, str) else value
    run = await client.start(workflow, value)
    await run.wait(timeout=PATIENCE)

    replay_history(app.worker, await run.detail())


async def test_a_run_that_waits_fits_the_body_that_made_it(client: Client) -> None:
    key = uuid4().hex
    stepping = await client.start("py.cancellable", key)
    signalled = await client.start("py.signalled", key)
    details = [
        await rested(client, stepping.run_id, entries=1),
        await rested(client, signalled.run_id, entries=1),
    ]
    for run in (stepping, signalled):
        await run.cancel()

    for each in details:
        replay_history(app.worker, each)


async def test_a_body_that_swaps_two_steps_no_longer_fits(client: Client) -> None:
    run = await client.start("py.sum", {"a": 2, "b": 3})
    await run.wait(timeout=PATIENCE)
    changed = Worker()

    @changed.workflow("py.sum")
    async def swapped(ctx: WorkflowContext, pair: app.Pair) -> int:
        doubled = await ctx.step("ts.double", pair.a, returns=int)
        return await ctx.step("py.add", app.Pair(doubled, pair.b), returns=int)

    with pytest.raises(NondeterminismError) as raised:
        replay_history(changed, await run.detail())
    assert (raised.value.seq, raised.value.recorded) == (0, "step 'py.add'")
