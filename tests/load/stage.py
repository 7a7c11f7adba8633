"""An operator and a worker in processes of their own, and a client that asks over the broker."""

import math
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from durable_worker.client.broker import BrokerPort
from durable_worker.client.client import Client
from durable_worker.protocol.names import Names
from durable_worker.stores.address import PostgresAddress
from durable_worker.transports.rabbitmq import RabbitTransport
from tests.bench.processes import Program

CLI = (sys.executable, "-m", "durable_worker")


class Stage:
    def __init__(
        self, client: Client, port: BrokerPort, schema: PostgresAddress, place: Sequence[str]
    ) -> None:
        self.client = client
        self.port = port
        self.schema = schema
        self._place = place
        self._operator: Program | None = None

    @property
    def operator(self) -> Program:
        assert self._operator is not None
        return self._operator

    def start_operator(self) -> float:
        """When it was started, by the clock that all processes share."""
        began = time.monotonic()
        words = ("operator", *self._place, "--database", self.schema.url)
        self._operator = Program([*CLI, *words])
        return began

    def kill_operator(self) -> None:
        self.operator.process.send_signal(signal.SIGKILL)
        self.operator.stop()

    def close(self) -> None:
        if self._operator is not None:
            self._operator.stop()


@asynccontextmanager
async def staged(schema: PostgresAddress, url: str, prefix: str) -> AsyncIterator[Stage]:
    """With a worker and an operator."""
    names = Names(prefix=prefix)
    place = ("--broker", url, "--prefix", prefix, "--log-format", "json")
    async with AsyncExitStack() as stack:
        port = BrokerPort(RabbitTransport(url, names=names), names=names)
        client = await stack.enter_async_context(Client(port))
        stack.enter_context(Program([*CLI, "run", "tests.load.app:worker", *place]))
        stage = Stage(client, port, schema, place)
        stack.callback(stage.close)
        stage.start_operator()
        yield stage


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    """Seconds."""
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


def p95(values: Sequence[float]) -> float:
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]
