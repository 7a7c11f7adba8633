"""A broker of the suite's own, two operators on one database, workers, clients, and a network."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import aio_pika

from durable_worker.client.broker import BrokerPort
from durable_worker.client.client import Client
from durable_worker.protocol.names import Names
from durable_worker.transports.rabbitmq import RabbitTransport
from tests.broker.lanes import lane_of_the_session
from tests.broker.node import BrokerNode
from tests.chaos.audit.evidence import Evidence
from tests.chaos.disk import SmallDisk
from tests.chaos.fleet import Fleet, Member
from tests.chaos.load import Load
from tests.chaos.logbook import Logbook
from tests.chaos.network import Proxy
from tests.servers import ServerUnavailableError

PREFIX = "chaos"
QUIET_SECONDS = 120.0
"""So long everything that was put off may take, once the last fault is healed."""


@dataclass
class Fault:
    """One line of the fault log. `pids` are the processes that were hit; `kind` says by what."""

    kind: str
    targets: list[str]
    pids: list[int]
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None
    messages: list[str] = field(default_factory=list[str])
    runs: list[str] = field(default_factory=list[str])


class Stage:
    def __init__(
        self, folder: Path, random: Random, *, workers: int = 2, may_mount: bool = True
    ) -> None:
        self.folder = folder
        self.random = random
        self.names = Names(prefix=PREFIX)
        self.disk = SmallDisk(folder / "disk", may_mount=may_mount)
        self.database = self.disk.path / "operator.db"
        self.broker_lock = asyncio.Lock()
        """Held by whoever needs the broker as it is."""
        self.operators_ahead = 0.0
        """Seconds that the operators' machine is ahead of ours: timers that were set under such a
        clock are late by as much if it is set back."""
        self.deleted_at = 0.0
        """When a queue was deleted last."""
        self._workers = workers
        self._faults = Logbook(folder / "faults")
        self._stack = AsyncExitStack()
        self.node: BrokerNode
        self.fleet: Fleet
        self.load: Load

    async def __aenter__(self) -> "Stage":
        try:
            self._stack.enter_context(self.disk)
            self.node = BrokerNode()
            self._stack.push_async_callback(lambda: asyncio.to_thread(self.node.close))
            await asyncio.to_thread(self.node.start)
            self.fleet = await self._stack.enter_async_context(Fleet(self.folder))
            for number in (1, 2):
                await self._add(f"operator-{number}", "operator", "--database", str(self.database))
            for number in range(1, self._workers + 1):
                await self._add(
                    f"worker-{number}",
                    "run",
                    *("tests.chaos.app:worker", "--concurrency", "8", "--grace", "30"),
                )
            for member in self.fleet.members:
                self.fleet.start(member)
            self.client_network = await self._proxy()
            transport = RabbitTransport(
                self._url(self.client_network), names=self.names, lane=lane_of_the_session()
            )
            port = BrokerPort(transport, names=self.names)
            client = await self._stack.enter_async_context(Client(port))
            self.load = Load(client, folder=self.folder, database=self.database, random=self.random)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _proxy(self) -> Proxy:
        return await self._stack.enter_async_context(Proxy(self.node.port))

    def _url(self, network: Proxy) -> str:
        return f"amqp://guest:guest@127.0.0.1:{network.port}/"

    async def _add(self, name: str, command: str, *words: str) -> Member:
        network = await self._proxy()
        role = "operator" if command == "operator" else "worker"
        at = ("--broker", self._url(network), "--prefix", PREFIX, "--log-format", "json")
        return self.fleet.add(name, role, (command, *words, *at), network=network)

    # For faults

    @asynccontextmanager
    async def fault(
        self, kind: str, *members: Member, broker: bool = False
    ) -> AsyncIterator[Fault]:
        """Note a fault: it lasts as long as the block."""
        pids = [pid for each in members if (pid := each.pid) is not None]
        targets = [each.name for each in members] + ["broker"] * broker
        fault = Fault(kind, targets, pids)
        try:
            yield fault
        finally:
            fault.ended = time.monotonic()
            self._faults.write(**fault.__dict__)

    def any_of(self, role: str) -> Member:
        return self.random.choice(self.fleet.of(role))

    async def lease_holder(self) -> Member:
        """The operator that operates; the other one waits for it to end."""
        while True:
            pid = await asyncio.to_thread(self.load.runs.lease_holder)
            for each in self.fleet.of("operator"):
                if pid is not None and each.pid == pid:
                    return each
            await asyncio.sleep(0.05)

    def anybody(self) -> Member:
        return self.random.choice([each for each in self.fleet.members if each.is_wanted])

    def ahead_of_us(self, member: Member) -> float:
        return self.operators_ahead if member.role == "operator" else 0.0

    async def ctl(self, *arguments: str) -> str:
        return await asyncio.to_thread(self.node.ctl, *arguments)

    async def queues(self) -> dict[str, tuple[int, int]]:
        """Of each queue how many messages are ready, and how many are taken but not acked."""
        columns = ("name", "messages_ready", "messages_unacknowledged")
        listing = await self.ctl("list_queues", *columns, "--formatter", "json")
        return {
            each["name"]: (each["messages_ready"], each["messages_unacknowledged"])
            for each in json.loads(listing)
        }

    async def emptied(self, queue: str) -> None:
        """Wait until a queue holds nothing, and nobody holds anything of it."""
        await self._until(lambda: self._is_empty([queue]), f"{queue} did not become empty")

    async def _is_empty(self, wanted: Collection[str] | None = None) -> bool:
        """Of these, or of all queues. Asks over AMQP first: starting rabbitmqctl takes long."""
        async with await aio_pika.connect(self.node.url()) as connection:
            channel = await connection.channel()
            for queue in wanted or (self.names.results, self.names.decisions):
                state = await channel.declare_queue(queue, passive=True)
                if state.declaration_result.message_count:
                    return False
        queues = await self.queues()
        return bool(queues) and not any(
            sum(held) for queue, held in queues.items() if wanted is None or queue in wanted
        )

    async def delete_queue(self, queue: str) -> None:
        async with await aio_pika.connect(self.node.url()) as connection:
            channel = await connection.channel()
            await channel.queue_delete(queue)
        self.deleted_at = time.monotonic()

    # The end

    async def finish(self) -> Evidence:
        """Wait until the queues are empty, stop everybody, and gather what the auditor reads."""
        await self._until(self._is_empty, "the queues did not become empty")
        listing = await self.queues()
        await self._stop(self.fleet.of("worker"))
        await self._stop(self.fleet.of("operator"))
        connections = await self._connections_left()
        return Evidence.gather(
            self.folder, database=self.database, queues=listing, connections=connections
        )

    async def _stop(self, members: list[Member]) -> None:
        await asyncio.gather(*(self.fleet.stop(each) for each in members))

    async def _connections_left(self) -> list[str]:
        """Those beside the client's own two, once the broker has had time to notice."""
        mine = 2
        found: list[str] = []

        async def none_left() -> bool:
            listing = await self.ctl("list_connections", "pid", "name", "--formatter", "json")
            found[:] = [each["name"] for each in json.loads(listing)]
            return len(found) <= mine

        try:
            await self._until(none_left, "connections are left", seconds=30)
        except AssertionError:
            return found
        return []

    async def _until(
        self, is_so: Callable[[], Any], complaint: str, *, seconds: float = QUIET_SECONDS
    ) -> None:
        until = time.monotonic() + seconds
        while True:
            try:
                if await is_so():
                    return
            except ServerUnavailableError:
                pass  # it may still be starting
            if time.monotonic() > until:
                raise AssertionError(complaint)
            await asyncio.sleep(0.2)
