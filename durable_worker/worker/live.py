"""What a worker broadcasts while it works: heartbeats and step events; at most once, in order."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import timedelta

import anyio
import structlog
from msgspec import Struct, structs

from durable_worker.clock import Clock
from durable_worker.edge.errors import SealError
from durable_worker.errors import PayloadTooLargeError, UnsendableError
from durable_worker.protocol.codec import MessageType, encode
from durable_worker.protocol.control import EngineEvent, EngineEventType, EventHappened, Heartbeat
from durable_worker.protocol.names import Names
from durable_worker.protocol.results import StepEvent
from durable_worker.transports.base import Envelope, Transport
from durable_worker.worker.step_context import StepContext

log = structlog.get_logger("durable_worker.worker")

SealEvent = Callable[[str, StepEvent], Awaitable[StepEvent]]
"""Of which run, and what its step says."""

HEARTBEAT_EVERY = timedelta(seconds=5)
MAX_WAITING = 10_000
"""Broadcasts kept while the broker is slow; the oldest are dropped first."""


class _Waiting(Struct, frozen=True):
    exchange: str
    report: EngineEvent | Heartbeat


class LiveReports:
    """Takes reports from the event loop and from step threads; `run` sends them."""

    def __init__(
        self, transport: Transport, names: Names, *, instance_id: str, seal: SealEvent, clock: Clock
    ) -> None:
        self._transport = transport
        self._names = names
        self._instance_id = instance_id
        self._seal = seal
        self._clock = clock
        self._waiting: deque[_Waiting] = deque(maxlen=MAX_WAITING)
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._alive: dict[object, Heartbeat] = {}

    async def run(self) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._send_waiting)
            group.start_soon(self._beat)

    # StepReporter

    def event(self, context: StepContext, event: StepEvent) -> None:
        progress = EngineEvent(
            type=EngineEventType.STEP_PROGRESS,
            run_id=context.run_id,
            seq=context.seq,
            name=context.name,
            event=event,
            at=self._clock.now(),
        )
        self._put(self._names.control, progress)

    def heartbeat(self, context: StepContext) -> None:
        beat = self._alive.get(context)
        if beat is not None:
            self._put(self._names.heartbeat, beat)

    # Steps and turns that are running

    def started(self, key: object, heartbeat: Heartbeat) -> None:
        self._alive[key] = heartbeat
        self._put(self._names.heartbeat, heartbeat)

    def ended(self, key: object) -> None:
        self._alive.pop(key, None)

    def _put(self, exchange: str, report: EngineEvent | Heartbeat) -> None:
        self._waiting.append(_Waiting(exchange, report))
        try:
            running = asyncio.get_running_loop()
        except RuntimeError:
            running = None
        if running is self._loop:
            self._wake.set()
        else:
            self._loop.call_soon_threadsafe(self._wake.set)

    async def _send_waiting(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                waiting = self._waiting.popleft()
                envelope = await self._envelope(waiting.report)
                if envelope is not None:
                    await self._send(waiting, envelope)

    async def _send(self, waiting: _Waiting, envelope: Envelope) -> None:
        try:
            await self._transport.broadcast(waiting.exchange, envelope)
        except (PayloadTooLargeError, UnsendableError) as error:
            log.debug("live_event_lost", run_id=waiting.report.run_id, reason=str(error))

    async def _envelope(self, report: EngineEvent | Heartbeat) -> Envelope | None:
        if isinstance(report, Heartbeat):
            return Envelope(MessageType.HEARTBEAT, encode(report))
        if report.event is not None:
            try:
                report = structs.replace(
                    report, event=await self._seal(report.run_id, report.event)
                )
            except SealError as error:
                log.debug("live_event_lost", run_id=report.run_id, reason=str(error))
                return None
        message = EventHappened(event=report, sender=self._instance_id)
        return Envelope(MessageType.CONTROL, encode(message))

    async def _beat(self) -> None:
        while True:
            await anyio.sleep(HEARTBEAT_EVERY.total_seconds())
            for heartbeat in list(self._alive.values()):
                self._put(self._names.heartbeat, heartbeat)
