"""Keeps one pair of connections alive: connect, serve, and after a loss start over."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol

from msgspec import Struct

from durable_worker.errors import BrokerRefusedError, TransportError
from durable_worker.transports.rabbitmq.address import AddressSource
from durable_worker.transports.rabbitmq.backoff import Backoff
from durable_worker.transports.rabbitmq.lanes import Lane
from durable_worker.transports.rabbitmq.link import Link, open_link
from durable_worker.transports.rabbitmq.pulse import Pulse
from durable_worker.transports.rabbitmq.states import (
    Connected,
    ConnectFailed,
    Connecting,
    Disconnected,
    StateListener,
)

STABLE_SECONDS = 10.0
"""A connection that lived this long makes earlier failures forgotten."""


class Resident(Protocol):
    """Something that lives on a link, and on the next one after that."""

    async def serve(self, link: Link) -> None: ...
    def refuse(self, error: TransportError) -> None:
        """There will be no link: fail whoever waits for one."""
        ...


class Roster:
    """Who lives on one of the two connections, served from the moment that it is up."""

    def __init__(self, role: str) -> None:
        self.role = role
        self._residents: dict[Resident, None] = {}
        self._place: tuple[Link, asyncio.TaskGroup] | None = None
        self._refusal: TransportError | None = None

    def add(self, resident: Resident) -> None:
        self._residents[resident] = None
        if self._refusal is not None:
            resident.refuse(self._refusal)
        elif self._place is not None:
            self._serve(resident, *self._place)

    def remove(self, resident: Resident) -> None:
        """It is not served on further links."""
        self._residents.pop(resident, None)

    def refuse(self, error: TransportError) -> None:
        self._refusal = error
        for resident in [*self._residents]:
            resident.refuse(error)

    @contextmanager
    def living_on(self, link: Link, group: asyncio.TaskGroup) -> Generator[None]:
        self._place = (link, group)
        for resident in self._residents:
            self._serve(resident, link, group)
        try:
            yield
        finally:
            self._place = None

    def _serve(self, resident: Resident, link: Link, group: asyncio.TaskGroup) -> None:
        group.create_task(resident.serve(link))


class ConnectionOptions(Struct, frozen=True):
    """How to connect. `heartbeat` in seconds."""

    address: AddressSource
    name: str
    heartbeat: int
    lane: Lane = Lane.FAST


class Supervisor:
    """One connection for each roster, opened and given up together.

    They are separate because a broker that blocks a publisher stops reading its connection, acks
    included. Together they form one generation.
    """

    def __init__(
        self,
        options: ConnectionOptions,
        rosters: tuple[Roster, ...],
        *,
        backoff: Backoff,
        emit: StateListener,
    ) -> None:
        self._options = options
        self._rosters = rosters
        self._backoff = backoff
        self._emit = emit
        self._pulse = Pulse()
        self._generation = 0
        self._links_up = 0
        self._connected_at: float | None = None
        self._was_connected = False
        self._is_stopping = False
        self._changed = asyncio.Event()
        self._refusal: TransportError | None = None

    async def wait_connected(self) -> None:
        """Raises the `BrokerRefusedError` that the broker met the first connection with."""
        while self._connected_at is None:
            if self._refusal is not None:
                raise self._refusal
            await self._changed.wait()

    @property
    def is_connected(self) -> bool:
        return self._connected_at is not None

    async def run(self) -> None:
        """Serve until cancelled, or until the broker refuses a client that it never let in."""
        self._emit(Connecting(self._options.address.latest.safe))
        try:
            await self._live_again_and_again()
        finally:
            self._pulse.stop()

    async def _live_again_and_again(self) -> None:
        while True:
            error = await self._live()
            # A task group that fails while it is cancelled tells of the failure only.
            if self._is_stopping:
                return
            if isinstance(error, BrokerRefusedError) and not self._was_connected:
                self.refuse(error)
                return
            delay = self._lose(str(error))
            await asyncio.sleep(delay)

    def stop(self, task: asyncio.Task[None], error: TransportError) -> None:
        """End `run`, which runs as `task`; whoever waits for a connection gets the error."""
        self._is_stopping = True
        self.refuse(error)
        task.cancel()

    def refuse(self, error: TransportError) -> None:
        self._refusal = error
        self._changed.set()
        for roster in self._rosters:
            roster.refuse(error)

    async def _live(self) -> TransportError:
        """One generation from connecting to loss; why it ended."""
        self._generation += 1
        self._links_up = 0
        try:
            async with asyncio.TaskGroup() as group:
                for roster in self._rosters:
                    group.create_task(self._hold(roster))
        except BaseExceptionGroup as failures:
            return _cause_of(failures)
        raise AssertionError("a generation ends by an error only")

    async def _hold(self, roster: Roster) -> None:
        link = await open_link(
            self._options.address.current(),
            name=f"{self._options.name} ({roster.role})",
            heartbeat=self._options.heartbeat,
            generation=self._generation,
            pulse=self._pulse,
            lane=self._options.lane,
        )
        try:
            async with asyncio.TaskGroup() as group:
                with roster.living_on(link, group):
                    self._note_link_up()
                    raise await link.lost()
        finally:
            await link.close()

    def _note_link_up(self) -> None:
        self._links_up += 1
        if self._links_up == len(self._rosters):
            self._connected_at = asyncio.get_running_loop().time()
            self._was_connected = True
            self._changed.set()
            self._emit(Connected(self._options.address.latest.safe, self._generation))

    def _lose(self, reason: str) -> float:
        """Account for a failed attempt or a lost connection; seconds until the next attempt."""
        since, self._connected_at = self._connected_at, None
        self._changed.clear()
        if since is not None and asyncio.get_running_loop().time() - since > STABLE_SECONDS:
            self._backoff.reset()
        delay = self._backoff.next_delay()
        if since is None:
            self._emit(ConnectFailed(self._backoff.failures, delay, reason))
        else:
            self._emit(Disconnected(reason, delay))
        return delay.total_seconds()


def _cause_of(failures: BaseExceptionGroup[BaseException]) -> TransportError:
    """The transport's error among them, a refusal first. Raises whatever is a defect of ours."""
    expected, defects = failures.split(TransportError)
    if defects is not None or expected is None:
        raise failures
    leaves = [*_leaves(expected)]
    return next((leaf for leaf in leaves if isinstance(leaf, BrokerRefusedError)), leaves[0])


def _leaves(group: BaseExceptionGroup[TransportError]) -> Generator[TransportError]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _leaves(each)
        else:
            yield each
