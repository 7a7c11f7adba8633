"""The Python client asks a NestJS operator over the broker."""

from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import anyio
import pytest
from anyio.to_thread import run_sync

from durable_worker.client import Client, broker_client
from durable_worker.errors import RequestRefusedError, RunFailedError, RunNotFoundError
from durable_worker.protocol.codec import RUN_REPLY, MessageType, encode
from durable_worker.protocol.names import DEFAULT_NAMESPACE, Names
from durable_worker.protocol.payload import plain_json
from durable_worker.protocol.runs import (
    AnyRequest,
    RequestResult,
    RetryRun,
    RunQuery,
    RunRequest,
    RunStatus,
    WaitingFor,
)
from durable_worker.transports.base import Envelope
from durable_worker.transports.rabbitmq import RabbitTransport
from tests.interop.control import Control
from tests.interop.processes import House

pytestmark = [pytest.mark.anyio, pytest.mark.broker]

PATIENCE = timedelta(seconds=20)


def client_of(house: House, tenant: str = DEFAULT_NAMESPACE) -> Client:
    names = Names(prefix=house.prefix)
    return broker_client(RabbitTransport(house.url, names=names), names=names, tenant=tenant)


@pytest.fixture
async def client(shared_house: House) -> AsyncIterator[Client]:
    async with client_of(shared_house) as client:
        yield client


async def ask(house: House, body: AnyRequest, *, tenant: str = DEFAULT_NAMESPACE) -> RequestResult:
    """What the client has no method for: the request and its reply as they are on the wire."""
    names = Names(prefix=house.prefix)
    key = uuid4().hex
    answers: list[RequestResult] = []
    arrived = anyio.Event()

    def on_reply(envelope: Envelope) -> None:
        reply = RUN_REPLY.decode(envelope.body)
        if reply.request_id == key:
            answers.append(reply.result)
            arrived.set()

    async with RabbitTransport(house.url, names=names) as transport:
        await transport.wait_connected()
        await transport.listen(names.run_reply, on_reply)
        request = RunRequest(request_id=key, tenant=tenant, body=body)
        envelope = Envelope(MessageType.RUN_REQUEST, encode(request), key)
        await transport.send(names.run_request, envelope)
        with anyio.fail_after(10):
            await arrived.wait()
    return answers[0]


async def test_a_python_workflow_that_the_client_starts_gives_its_output(client: Client) -> None:
    run = await client.start("py.sum", {"a": 2, "b": 3}, returns=int)

    assert await run.result(timeout=PATIENCE) == 10


async def test_a_typescript_workflow_that_the_client_starts_gives_its_output(
    client: Client,
) -> None:
    run = await client.start("ts.child", 21, returns=int)

    assert await run.result(timeout=PATIENCE) == 42


async def test_a_run_id_that_is_started_twice_is_one_run(client: Client) -> None:
    run_id = uuid4().hex
    first = await client.start("py.sum", {"a": 1, "b": 1}, run_id=run_id)
    second = await client.start("py.sum", {"a": 9, "b": 9}, run_id=run_id)

    assert [await each.result(timeout=PATIENCE) for each in (first, second)] == [4, 4]


async def test_a_failed_run_raises_with_the_message_of_its_failure(client: Client) -> None:
    run = await client.start("py.failing-child", "4000")

    with pytest.raises(RunFailedError, match="card 4000 was declined"):
        await run.result(timeout=PATIENCE)


async def test_the_detail_of_a_run_holds_its_timeline(client: Client) -> None:
    run = await client.start("py.sum", {"a": 2, "b": 3})
    await run.wait(timeout=PATIENCE)

    detail = await run.detail()
    assert detail.run.status is RunStatus.COMPLETED
    told = [(entry.name, entry.status, plain_json(entry.output)) for entry in detail.timeline]
    assert told == [("py.add", "completed", 5), ("ts.double", "completed", 10)]


async def test_a_run_that_does_not_exist_is_said_not_to_exist(client: Client) -> None:
    with pytest.raises(RunNotFoundError):
        await client.detail(uuid4().hex)


async def test_the_list_of_runs_can_be_narrowed(client: Client) -> None:
    run = await client.start("py.fan", 1)
    await run.wait(timeout=PATIENCE)

    query = RunQuery(workflow="py.fan", status=RunStatus.COMPLETED)
    assert run.run_id in [each.id for each in await client.list(query)]
    query = RunQuery(workflow="py.fan", status=RunStatus.FAILED)
    assert run.run_id not in [each.id for each in await client.list(query)]


async def test_a_cancelled_run_ends_as_cancelled(client: Client) -> None:
    run = await client.start("py.cancellable", uuid4().hex)
    await run.detail()
    await run.cancel()

    assert (await run.wait(timeout=PATIENCE)).status is RunStatus.CANCELLED


async def test_a_failed_run_can_be_asked_to_be_tried_again(
    shared_house: House, control: Control
) -> None:
    run_id = await run_sync(control.one_step, "py.second-try", uuid4().hex)
    assert (await run_sync(control.outcome, run_id)).status == "failed"

    result = await ask(shared_house, RetryRun(run_id=run_id))

    assert result.ok, result
    again = await run_sync(partial(control.wait, run_id, status=("completed",)))
    assert again.run is not None
    assert again.run.output == f"{run_id}:0"


async def test_what_a_run_waits_for_can_be_asked(
    shared_house: House, control: Control, prefix: str
) -> None:
    run_id = await run_sync(control.start, "py.signalled", f"asked:{prefix}")
    waiting: Any = {}
    with anyio.fail_after(10):
        while not waiting:
            result = await ask(shared_house, WaitingFor(run_ids=[run_id]))
            waiting = plain_json(result.data)
            await anyio.sleep(0.05)

    assert waiting == {run_id: {"on": "signal", "name": f"asked:{prefix}"}}
    await run_sync(control.signal, f"asked:{prefix}")


async def test_runs_of_another_tenant_are_not_shown(client: Client, shared_house: House) -> None:
    run = await client.start("py.sum", {"a": 1, "b": 1})
    await run.wait(timeout=PATIENCE)

    async with client_of(shared_house, tenant="other") as stranger:
        assert list(await stranger.list()) == []
        with pytest.raises(RequestRefusedError, match="belongs to another tenant"):
            await stranger.detail(run.run_id)
        with pytest.raises(RequestRefusedError, match="belongs to another tenant"):
            await stranger.cancel(run.run_id)


async def test_a_start_waits_for_the_workers_of_its_tenant(shared_house: House) -> None:
    async with client_of(shared_house, tenant="green") as client:
        run = await client.start("py.fan", 2, returns=list[int])
        await run_sync(shared_house.operator.logged, run.run_id)
        worker = await run_sync(shared_house.start_worker, "--partition", "green")

        assert await run.result(timeout=PATIENCE) == [1, 2]
    await run_sync(worker.stop)


async def test_a_signal_from_the_client_is_refused_in_words_by_an_operator_that_takes_none(
    client: Client,
) -> None:
    with pytest.raises(RequestRefusedError):
        await client.signal("nobody", 1)
