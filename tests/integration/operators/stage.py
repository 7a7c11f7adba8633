"""Several operators on one PostgreSQL, in this process, with a worker, on a broker."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

from durable_worker import Worker
from durable_worker.client.broker import BrokerPort
from durable_worker.client.client import Client
from durable_worker.operator.options import OperatorOptions
from durable_worker.operator.service import OperatorService
from durable_worker.protocol.names import Names
from durable_worker.stores.address import PostgresAddress
from durable_worker.stores.postgres import PostgresStore
from durable_worker.transports.rabbitmq import RabbitTransport
from durable_worker.worker.options import WorkerOptions
from durable_worker.worker.service import WorkerService

OPTIONS = OperatorOptions(lease_ttl=timedelta(seconds=3))


class Stage:
    """`operators` share database and broker; the client asks whichever takes the request."""

    def __init__(self, client: Client, operators: list[OperatorService]) -> None:
        self.client = client
        self.operators = operators


@asynccontextmanager
async def operating(
    count: int, worker: Worker, *, schema: PostgresAddress, url: str, prefix: str
) -> AsyncIterator[Stage]:
    names = Names(prefix=prefix)
    async with AsyncExitStack() as stack:
        port = BrokerPort(RabbitTransport(url, names=names), names=names)
        client = await stack.enter_async_context(Client(port))
        operators: list[OperatorService] = []
        for _ in range(count):
            store = await stack.enter_async_context(PostgresStore(schema))
            transport = await stack.enter_async_context(RabbitTransport(url, names=names))
            operators.append(OperatorService(store, transport, names=names, options=OPTIONS))
        transport = await stack.enter_async_context(RabbitTransport(url, names=names))
        working = WorkerService(
            worker, transport, names=names, options=WorkerOptions(concurrency=50)
        )
        group = await stack.enter_async_context(asyncio.TaskGroup())
        serving = [group.create_task(each.serve()) for each in (*operators, working)]
        yield Stage(client, operators)
        for each in (working, *operators):
            each.request_stop()
        await asyncio.wait(serving)
