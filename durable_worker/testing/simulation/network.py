"""What a simulated process and the simulated broker are connected by, and how that fails."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from random import Random
from typing import Any

from durable_worker.errors import ConnectionLostError
from durable_worker.testing.simulation.audit import Audit
from durable_worker.testing.simulation.broker import Broker, Consumer, Listener
from durable_worker.testing.simulation.chance import FaultKind, Strikes
from durable_worker.testing.simulation.loop import Scheduler
from durable_worker.testing.simulation.processes import Process
from durable_worker.testing.simulation.trace import Trace

_HEARTBEAT = timedelta(seconds=4)
"""After so much silence at the most, either side gives a connection up."""


class Network:
    """What all links share. `ends` are those of living processes."""

    def __init__(
        self,
        scheduler: Scheduler,
        broker: Broker,
        *,
        strikes: Strikes,
        trace: Trace,
        random: Random,
        audit: Audit,
    ) -> None:
        self.scheduler = scheduler
        self.broker = broker
        self.strikes = strikes
        self.trace = trace
        self.random = random
        self.audit = audit
        self.ends: dict[Endpoint, None] = {}

    def latency(self) -> float:
        return 0.0002 + self.random.random() * 0.002

    def restart_broker(self) -> None:
        self.trace.note(self.scheduler.now, "broker", "RESTARTED")
        for end in list(self.ends):
            end.cut("the broker was restarted")


class Connection:
    """One TCP connection. Each side learns on its own that it is gone."""

    __slots__ = ("arrivals", "consumers", "is_open_here", "is_open_there", "is_silent", "pending")

    def __init__(self) -> None:
        self.is_open_here = True
        self.is_open_there = True
        self.is_silent = False
        self.arrivals: dict[object, float] = {}
        self.pending: dict[asyncio.Future[Any], None] = {}
        self.consumers: dict[object, list[Consumer | Listener]] = {}


class Endpoint:
    """The end of a process: one connection after the other. Everything in it stands still once the
    process is dead."""

    def __init__(
        self, network: Network, process: Process, *, on_connected: Callable[[], None]
    ) -> None:
        self._network = network
        self._process = process
        self._life = process.lives
        self._on_connected = on_connected
        self._unreachable_until = 0.0
        self.connection: Connection | None = None
        self._connected = asyncio.Event()
        self._is_open = False
        self.is_closed = False

    def open(self) -> None:
        self._is_open = True
        self._network.ends[self] = None
        self._reconnect_in(self._network.latency())

    def check_open(self) -> None:
        if self.is_closed or not self._is_open:
            raise ConnectionLostError("the transport is closed; use it inside `async with`")

    async def wait_connected(self) -> None:
        self.check_open()
        await self._connected.wait()

    def _reconnect_in(self, seconds: float) -> None:
        at = max(self._network.scheduler.now + seconds, self._unreachable_until)
        self._network.scheduler.call_at(at, self._connect)

    def _connect(self) -> None:
        if not self.is_here or self.is_closed or self.connection is not None:
            return
        if self._network.scheduler.now < self._unreachable_until:
            self._reconnect_in(0.0)
            return
        self.connection = Connection()
        self._on_connected()
        with self._network.scheduler.inside(self._process.loop):
            self._connected.set()

    def cut(self, reason: str) -> None:
        """Both sides see at once that the connection is gone."""
        connection = self.connection
        if connection is not None:
            self._network.trace.note(
                self._network.scheduler.now, self._process.label, "CUT", reason
            )
            self._lose_there(connection)
            self._lose_here(connection)

    def silence(self, random: Random) -> None:
        """Nothing comes through any more, and each side gives up in its own time."""
        connection = self.connection
        if connection is None or connection.is_silent:
            return
        scheduler, longest = self._network.scheduler, _HEARTBEAT.total_seconds()
        connection.is_silent = True
        here, there = random.uniform(0.2, longest), random.uniform(0.2, longest)
        self._unreachable_until = scheduler.now + random.uniform(0.1, longest)
        self._network.trace.note(
            scheduler.now, self._process.label, "SILENCED", f"{here:.2f}s here, {there:.2f}s there"
        )
        scheduler.call_at(scheduler.now + here, self._lose_here, connection)
        scheduler.call_at(scheduler.now + there, self._lose_there, connection)

    def close(self) -> None:
        """The process has ended or died: the broker sees the connection close."""
        self.is_closed = True
        self._network.ends.pop(self, None)
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.is_open_here = False
            network = self._network
            if not connection.is_silent:
                # What was written before still arrives before the end does.
                end = max(
                    [network.scheduler.now + network.latency(), *connection.arrivals.values()]
                )
                network.scheduler.call_at(end, self._lose_there, connection)
            else:
                self._lose_there(connection)

    def _lose_here(self, connection: Connection) -> None:
        if not connection.is_open_here:
            return
        connection.is_open_here = False
        if not self.is_here:
            return
        with self._network.scheduler.inside(self._process.loop):
            for future in list(connection.pending):
                if not future.done():
                    future.set_exception(lost())
            connection.pending.clear()
            if self.connection is connection:
                self.connection = None
                self._connected.clear()
        self._reconnect_in(0.05 + self._network.random.random() * 0.3)

    def _lose_there(self, connection: Connection) -> None:
        if connection.is_open_there:
            connection.is_open_there = False
            self._network.broker.lose(connection)

    # Traffic

    @property
    def is_here(self) -> bool:
        return self._process.is_alive and self._process.lives == self._life

    async def ready(self) -> Connection:
        while True:
            self.check_open()
            if self.connection is not None:
                return self.connection
            await self._connected.wait()

    async def ask(self, connection: Connection, channel: object, act: Callable[[], Any]) -> Any:
        """Have something done there; what it gave. Raises `ConnectionLostError`."""
        if not connection.is_open_here:
            raise lost()
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        connection.pending[future] = None

        def arrived() -> None:
            outcome = act()
            self.here(connection, channel, lambda: _resolve(future, outcome))

        self.there(connection, channel, arrived)
        try:
            return await future
        finally:
            connection.pending.pop(future, None)

    def there(self, connection: Connection, channel: object, act: Callable[[], object]) -> None:
        """Happens at the broker later, if the connection still stands there then."""
        if not self.is_here or not connection.is_open_here:
            return

        def arrive() -> None:
            if connection.is_open_there:
                act()

        self._travel(connection, (channel, "there"), arrive)

    def here(self, connection: Connection, channel: object, act: Callable[[], object]) -> None:
        """Happens in this process later, if the connection still stands here then."""

        def arrive() -> None:
            if connection.is_open_here and self.is_here:
                self._process.loop.call_soon(act)

        self._travel(connection, (channel, "here"), arrive)

    def _travel(self, connection: Connection, way: object, arrive: Callable[[], None]) -> None:
        network = self._network
        strikes, scheduler = network.strikes, network.scheduler
        if strikes.hit(FaultKind.BROKER_RESTART) is not None:
            scheduler.call_at(scheduler.now, network.restart_broker)
        if strikes.hit(FaultKind.CUT) is not None:
            scheduler.call_at(scheduler.now, self.cut, "the connection broke")
        elif (random := strikes.hit(FaultKind.SILENCE)) is not None:
            self.silence(random)
        if connection.is_silent:
            return
        seconds = network.latency()
        if (random := strikes.hit(FaultKind.DELAY)) is not None:
            slow = random.choice((0.05, 0.3, 1.0, 3.0)) * random.random()
            network.trace.note(scheduler.now, self._process.label, "DELAYED", f"{slow:.2f}s")
            seconds += slow
        at = max(scheduler.now + seconds, connection.arrivals.get(way, 0.0))
        connection.arrivals[way] = at
        scheduler.call_at(at, self._unless_silent, connection, arrive)

    def _unless_silent(self, connection: Connection, arrive: Callable[[], None]) -> None:
        if not connection.is_silent:
            arrive()


def _resolve(future: asyncio.Future[Any], outcome: object) -> None:
    if not future.done():
        future.set_result(outcome)


def lost() -> ConnectionLostError:
    return ConnectionLostError("the connection to the broker was lost")
