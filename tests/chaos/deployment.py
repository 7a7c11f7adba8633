"""Operators and any number of workers on a broker that nothing happens to."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import aio_pika

from durable_worker.client.broker import BrokerPort
from durable_worker.client.client import Client
from durable_worker.protocol.names import Names
from durable_worker.transports.rabbitmq import RabbitTransport
from tests.broker.lanes import lane_of_the_session
from tests.chaos import app
from tests.chaos.audit.evidence import Evidence
from tests.chaos.fleet import Fleet, Member
from tests.chaos.load import Load
from tests.chaos.logbook import Logbook, read_lines
from tests.chaos.reading import Database, Schema

PATIENCE = 60.0


class Deployment:
    """Use as an async context manager. Workers take `options` of `durable-worker run`."""

    def __init__(
        self,
        folder: Path,
        url: str,
        prefix: str,
        *options: str,
        database: Schema | None = None,
        operators: int = 2,
    ) -> None:
        self._folder = folder
        self._url = url
        self._names = Names(prefix=prefix)
        self._options = options
        self._database: Database = database or folder / "operator.db"
        self._faults = Logbook(folder / "faults")
        self._first_operators = operators
        self._stack = AsyncExitStack()
        self._operators = 0
        self._workers = 0
        self.fleet = Fleet(folder)
        self.load: Load

    async def __aenter__(self) -> "Deployment":
        await self._stack.enter_async_context(self.fleet)
        port = BrokerPort(
            RabbitTransport(self._url, names=self._names, lane=lane_of_the_session()),
            names=self._names,
        )
        client = await self._stack.enter_async_context(Client(port))
        self.load = Load(
            client, folder=self._folder, database=self._database, random=Random(1), width=6
        )
        for _ in range(self._first_operators):
            self.add_operator()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def add_operator(self) -> Member:
        self._operators += 1
        database = self._database
        where = database.url if isinstance(database, Schema) else str(database)
        words = ("operator", "--database", where)
        return self._add(f"operator-{self._operators}", "operator", *words)

    def add_worker(self) -> Member:
        self._workers += 1
        words = ("run", "tests.chaos.app:worker", *self._options)
        return self._add(f"worker-{self._workers}", "worker", *words)

    def _add(self, name: str, role: str, *words: str) -> Member:
        at = ("--broker", self._url, "--prefix", self._names.prefix, "--log-format", "json")
        member = self.fleet.add(name, role, (*words, *at))
        self.fleet.start(member)
        return member

    def journal(self, what: str, member: Member | None = None) -> list[dict[str, Any]]:
        """Entries of this kind, of one process or of all."""
        return [
            entry
            for entry in read_lines(self.fleet.journal)
            if entry["what"] == what and (member is None or entry["pid"] == member.first_pid)
        ]

    async def begun(self, member: Member, count: int) -> None:
        """Wait until a process has started so many steps."""
        async with asyncio.timeout(PATIENCE):
            while len(self.journal("start", member)) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def finish(self) -> Evidence:
        """Stop everybody, then gather: what a process still held is back in its queue then."""
        for role in ("worker", "operator"):
            await asyncio.gather(*(self.fleet.stop(each) for each in self.fleet.of(role)))
        left = await self._left()
        return await asyncio.to_thread(
            Evidence.gather, self._folder, database=self._database, queues=left, connections=[]
        )

    @asynccontextmanager
    async def fault(self, kind: str, *members: Member) -> AsyncIterator[None]:
        """Note a fault: it lasts as long as the block."""
        began, pids = time.monotonic(), [pid for each in members if (pid := each.pid) is not None]
        try:
            yield
        finally:
            self._faults.write(
                kind=kind,
                targets=[each.name for each in members],
                pids=pids,
                began=began,
                ended=time.monotonic(),
            )

    async def _left(self) -> dict[str, tuple[int, int]]:
        names = self._names
        queues = [names.results, names.decisions, names.start_run, names.run_request, names.dead]
        queues += [names.tasks(name) for name in app.worker.names()]
        async with await aio_pika.connect(self._url) as connection:
            channel = await connection.channel()
            states = [await channel.declare_queue(queue, passive=True) for queue in queues]
        return {state.name: (state.declaration_result.message_count or 0, 0) for state in states}
