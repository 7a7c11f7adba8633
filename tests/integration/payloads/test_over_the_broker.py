"""Two workers in the middle of a rotation of keys, over RabbitMQ."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

import anyio
import msgspec
import pytest

from durable_worker import Worker
from durable_worker.client import Client, broker_client
from durable_worker.client.contexts import Context
from durable_worker.edge.plain import Codec
from durable_worker.operator.service import OperatorService
from durable_worker.payloads import PayloadSealedError
from durable_worker.protocol.names import Names
from durable_worker.stores.memory import MemoryStore
from durable_worker.transports.rabbitmq import RabbitTransport
from durable_worker.worker.service import WorkerService
from tests.integration.payloads.secrets import SECRET, context_worker, parts, secret_worker
from tests.integration.payloads.test_embedded import run_everything, sealing

pytestmark = [pytest.mark.anyio, pytest.mark.broker]

PATIENCE = timedelta(seconds=30)


@asynccontextmanager
async def served(url: str, names: Names, *workers: Worker) -> AsyncIterator[None]:
    """An operator and the workers, each with a connection of its own."""
    async with AsyncExitStack() as stack:

        async def transport() -> RabbitTransport:
            return await stack.enter_async_context(RabbitTransport(url, names=names))

        store = await stack.enter_async_context(MemoryStore())
        operator = OperatorService(store, await transport(), names=names)
        services = [WorkerService(each, await transport(), names=names) for each in workers]
        async with anyio.create_task_group() as group:
            group.start_soon(operator.serve)
            for each in services:
                group.start_soon(each.serve)
            yield
            for each in services:
                each.request_stop(hurry=True)
            operator.request_stop()


def client_at(
    url: str, names: Names, *, codec: Codec | None = None, context: Context | None = None
) -> Client:
    transport = RabbitTransport(url, names=names)
    return broker_client(transport, names=names, codec=codec, context=context)


async def test_workers_that_seal_with_different_keys_share_runs(
    broker_url: str, prefix: str
) -> None:
    names = Names(prefix=prefix)
    before, after = sealing("k1", "k2"), sealing("k1", "k2", current="k2")
    workers = (secret_worker(before), secret_worker(after))
    async with (
        served(broker_url, names, *workers),
        client_at(broker_url, names, codec=after) as client,
        client_at(broker_url, names) as stranger,
    ):
        assert await run_everything(client) == {"all": [SECRET] * 6}
        seen = msgspec.json.encode(await stranger.detail("all", keep_sealed=True))
        assert b"aes-siv" in seen
        assert SECRET.encode() not in seen
        with pytest.raises(PayloadSealedError, match="the output of run 'all'"):
            await stranger.handle("all").result(timeout=PATIENCE)


async def test_a_context_travels_over_the_broker(broker_url: str, prefix: str) -> None:
    names = Names(prefix=prefix)
    seen: list[tuple[str, object]] = []
    async with (
        served(broker_url, names, context_worker(seen)),
        client_at(broker_url, names, context={"tenant": "acme"}) as client,
    ):
        handle = await client.start("above", context={"user": "ada"})
        told = {"tenant": "acme", "user": "ada"}
        assert await handle.result(timeout=PATIENCE) == [[told, None], [told, None]]
    assert parts(seen) == dict.fromkeys(("step", "local step", "child's step"), (told, None))
