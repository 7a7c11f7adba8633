"""A web application and its client, with real servers, brokers and databases."""

import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import anyio
import pytest
import uvicorn
from fastapi import Depends, FastAPI
from fastapi.responses import StreamingResponse

from durable_worker.asgi import AppClient, ClientUnavailableError, server_sent_events
from durable_worker.asgi.errors import exception_handlers
from durable_worker.client import Client, broker_client
from durable_worker.embedded import Embedded
from durable_worker.errors import BrokerRefusedError, NoOperatorError, StoreError
from durable_worker.protocol.names import Names
from durable_worker.transports.memory import MemoryTransport
from durable_worker.transports.rabbitmq import RabbitTransport
from tests.conformance.clients.app import doubling, stages, worker
from tests.integration.operator.waiting import eventually

pytestmark = pytest.mark.anyio

SOON = 20.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
    return port


def application(durable: AppClient) -> FastAPI:
    app = FastAPI(lifespan=durable.lifespan, exception_handlers=exception_handlers)
    Durable = Annotated[Client, Depends(durable)]

    @app.get("/double/{number}")
    async def double(number: int, client: Durable) -> int:
        return await (await client.start(doubling, number)).result()

    @app.get("/runs/{run_id}")
    async def run(run_id: str, client: Durable) -> str:
        return (await (await client.get(run_id)).detail()).run.status

    @app.get("/runs/{run_id}/events")
    async def events(run_id: str, client: Durable) -> StreamingResponse:
        stream = client.events(run_id, history=True)
        return StreamingResponse(server_sent_events(stream), media_type="text/event-stream")

    @app.get("/alive")
    async def alive() -> bool:
        return True

    return app


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[int]:
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="on"))
    server.capture_signals = nullcontext  # type: ignore[method-assign]
    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with anyio.create_task_group() as group:
            group.start_soon(server.serve, [listening])
            yield listening.getsockname()[1]
            server.should_exit = True


async def get(port: int, path: str) -> tuple[int, dict[str, str], Any]:
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        await stream.send(f"GET {path} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
        received = b""
        try:
            while True:
                received += await stream.receive()
        except anyio.EndOfStream:
            pass
    head, _, body = received.partition(b"\r\n\r\n")
    status, *fields = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in fields)}
    is_json = headers.get("content-type") == "application/json"
    return int(status.split()[1]), headers, json.loads(body) if is_json else body


def current(durable: AppClient) -> Client | None:
    try:
        return durable()
    except ClientUnavailableError:
        return None


async def test_an_application_serves_runs_of_its_own_process(tmp_path: Path) -> None:
    durable = AppClient(lambda: Embedded(worker, database=tmp_path / "x.db"))
    with anyio.fail_after(SOON):
        async with served(application(durable)) as port:
            assert (await get(port, "/double/21"))[::2] == (200, 42)
            status, _, body = await get(port, "/runs/nosuch")
            assert (status, body["code"]) == (404, "run-not-found")
            await durable().start(doubling, 4, run_id="r")
            _, headers, stream = await get(port, "/runs/r/events")
    assert headers["content-type"].startswith("text/event-stream")
    lines = stream.decode().splitlines()
    kinds = [each for each in lines if each.startswith("event: ") and "suspended" not in each]
    assert kinds == ["event: run.started", "event: step.completed", "event: run.completed"]
    with pytest.raises(ClientUnavailableError, match="not running"):
        durable()


async def test_a_broker_that_is_away_delays_the_start_up_by_the_patience_only() -> None:
    def opening() -> AbstractAsyncContextManager[Client]:
        url = f"amqp://guest:guest@127.0.0.1:{free_port()}/"
        return broker_client(RabbitTransport(url, names=Names()))

    durable = AppClient(opening, patience=timedelta(milliseconds=100))
    with anyio.fail_after(SOON):
        async with served(application(durable)) as port:
            assert (await get(port, "/alive"))[::2] == (200, True)
            status, headers, body = await get(port, "/double/1")
    assert (status, headers["retry-after"], body["code"]) == (503, "5", "client-unavailable")
    assert "not connected yet" in body["detail"]


@pytest.mark.broker
async def test_a_broker_that_comes_later_is_used_from_then_on(broker_url: str, prefix: str) -> None:
    names = Names(prefix=prefix)
    is_there = anyio.Event()

    @asynccontextmanager
    async def opening() -> AsyncIterator[Client]:
        await is_there.wait()
        async with broker_client(
            RabbitTransport(broker_url, names=names),
            names=names,
            directory=worker,
            timeout=timedelta(milliseconds=200),
        ) as client:
            yield client

    durable = AppClient(opening, patience=timedelta(0))
    with anyio.fail_after(SOON):
        async with durable.lifespan():
            with pytest.raises(ClientUnavailableError):
                durable()
            is_there.set()
            await eventually(lambda: current(durable) is not None)
            with pytest.raises(NoOperatorError):
                await durable().get("r")


@pytest.mark.broker
async def test_bad_credentials_fail_the_start_up(broker_url: str) -> None:
    wrong = broker_url.replace("guest:guest", "guest:wrong")
    durable = AppClient(
        lambda: broker_client(RabbitTransport(wrong, names=Names())), patience=timedelta(seconds=9)
    )
    with anyio.fail_after(SOON), pytest.raises(BrokerRefusedError):
        async with durable.lifespan():
            raise AssertionError("it was entered")


async def test_an_error_of_the_application_comes_out_as_it_is() -> None:
    durable = AppClient(lambda: Embedded(worker))
    with pytest.raises(LookupError, match="mine"):
        async with durable.lifespan():
            raise LookupError("mine")


async def test_a_damaged_database_fails_the_start_up(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("no database")
    durable = AppClient(lambda: Embedded(worker, database=tmp_path / "x.db"))
    with pytest.raises(StoreError):
        async with durable.lifespan():
            raise AssertionError("it was entered")


async def test_a_client_that_fails_later_is_opened_again() -> None:
    opened = 0
    fail = anyio.Event()

    @asynccontextmanager
    async def opening() -> AsyncIterator[Client]:
        nonlocal opened
        opened += 1
        async with broker_client(MemoryTransport()) as client, anyio.create_task_group() as group:

            async def break_down() -> None:
                await fail.wait()
                raise StoreError("the disk is gone")

            if opened == 1:
                group.start_soon(break_down)
            try:
                yield client
            finally:
                group.cancel_scope.cancel()

    @asynccontextmanager
    async def unwrapped() -> AsyncIterator[Client]:
        try:
            async with opening() as client:
                yield client
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None

    durable = AppClient(unwrapped)
    with anyio.fail_after(SOON):
        async with durable.lifespan():
            first = durable()
            fail.set()
            await eventually(lambda: current(durable) is not first)
            with pytest.raises(ClientUnavailableError, match="the disk is gone") as caught:
                durable()
            assert isinstance(caught.value.failure, StoreError)
            await eventually(lambda: current(durable) is not None)
            assert durable() is not first
    assert opened == 2


async def test_a_lifespan_can_be_entered_again(tmp_path: Path) -> None:
    durable = AppClient(lambda: Embedded(worker, database=tmp_path / "x.db"))
    for number in (1, 2):
        async with durable.lifespan():
            assert await (await durable().start(doubling, number)).result() == 2 * number


async def test_a_quiet_stream_says_that_it_is_alive_and_stops_with_its_reader() -> None:
    async with Embedded(worker) as client:
        handle = await client.start(stages, 1)
        events = handle.events()
        async with aclosing(
            server_sent_events(events, keep_alive=timedelta(milliseconds=20))
        ) as stream:
            with anyio.fail_after(SOON):
                async for part in stream:
                    if part == b": keep-alive\n\n":
                        break
        with pytest.raises(StopAsyncIteration):
            await anext(events)


def test_who_does_not_use_it_imports_no_web_framework() -> None:
    code = (
        "import sys, durable_worker.asgi, durable_worker.embedded\n"
        "assert not {'starlette', 'fastapi'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
