"""An operator and a worker, each in a process of its own, that speak over the broker."""

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from durable_worker.client import Client, broker_client
from durable_worker.protocol.names import Names
from durable_worker.transports.rabbitmq import RabbitTransport
from tests.bench import effects
from tests.bench.processes import Program, environment
from tests.broker import new_prefix

CLI = (sys.executable, "-m", "tests.bench.programs.quiet_cli")
START_SECONDS = 20.0


@dataclass(frozen=True)
class Fleet:
    url: str
    names: Names
    operator: Program
    worker: Program

    @asynccontextmanager
    async def client(self) -> AsyncGenerator[Client]:
        """Once there is an operator. Raises `UnavailableError` if one of the two has ended."""
        transport = RabbitTransport(self.url, names=self.names)
        async with broker_client(transport, names=self.names) as client:
            deadline = time.monotonic() + START_SECONDS
            while await transport.consumers(self.names.start_run) == 0:
                self.operator.require_running()
                self.worker.require_running()
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no operator after {START_SECONDS:g} s")
                await asyncio.sleep(0.05)
            yield client
            self.operator.require_running()
            self.worker.require_running()


@contextmanager
def brokered(url: str, target: str, database: str, counted: Path) -> Generator[Fleet]:
    """`target` is the worker's, `database` the operator's; what `target` has done is in `counted`
    when this is left."""
    names = Names(prefix=new_prefix())
    place = ["--broker", url, "--prefix", names.prefix, "--log-format", "json"]
    settings = environment(**{effects.VARIABLE: str(counted)})
    with (
        Program([*CLI, "operator", *place, "--database", database]) as operator,
        Program([*CLI, "run", target, *place], env=settings) as worker,
    ):
        yield Fleet(url, names, operator, worker)
