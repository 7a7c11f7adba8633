"""Every way of a client to an operator, behind one fixture."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path

import anyio
import pytest

from durable_worker.client import Client, broker_client, store_client
from durable_worker.embedded import Embedded
from durable_worker.operator.service import OperatorService
from durable_worker.protocol.names import Names
from durable_worker.stores.memory import MemoryStore
from durable_worker.stores.sqlite import SqliteStore
from durable_worker.transports.base import Transport
from durable_worker.transports.memory import MemoryTransport
from durable_worker.transports.rabbitmq import RabbitTransport
from durable_worker.worker.service import WorkerService
from tests.conformance.clients.app import worker

LONG = timedelta(seconds=20)


@asynccontextmanager
async def embedded(path: Path) -> AsyncIterator[Client]:
    async with Embedded(worker, database=path) as client:
        yield client


@asynccontextmanager
async def beside(path: Path) -> AsyncIterator[Client]:
    async with (
        Embedded(worker, database=path),
        store_client(SqliteStore(path), directory=worker, timeout=LONG) as client,
    ):
        yield client


@asynccontextmanager
async def over(names: Names, transport: Callable[[], Transport]) -> AsyncIterator[Client]:
    """Three connections, as three processes have them."""
    store = MemoryStore()
    async with store, transport() as ours, transport() as theirs:
        operator = OperatorService(store, ours, names=names)
        service = WorkerService(worker, theirs, names=names)
        async with anyio.create_task_group() as group:
            group.start_soon(operator.serve)
            group.start_soon(service.serve)
            client = broker_client(transport(), names=names, directory=worker, timeout=LONG)
            async with client:
                yield client
            service.request_stop(hurry=True)
            operator.request_stop()


@pytest.fixture(
    params=[
        "embedded",
        "database",
        "memory",
        pytest.param("rabbitmq", marks=pytest.mark.broker),
    ]
)
async def client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Client]:
    way: AbstractAsyncContextManager[Client]
    match request.param:
        case "embedded":
            way = embedded(tmp_path / "x.db")
        case "database":
            way = beside(tmp_path / "x.db")
        case "memory":
            shared = MemoryTransport()
            way = over(Names(), lambda: shared)
        case _:
            names = Names(prefix=request.getfixturevalue("prefix"))
            url: str = request.getfixturevalue("broker_url")
            way = over(names, partial(RabbitTransport, url, names=names))
    async with way as client:
        yield client
