"""What a worker broadcasts while it works: heartbeats and step events; at most once, in order."""

import asyncio
import time
from collections import deque
from datetime import timedelta

import anyio
from msgspec import Struct

from durable_worker.protocol.codec import MessageType, encode
from durable_worker.protocol.control import EngineEvent, EngineEventType, EventHappened, Heartbeat
from durable_worker.protocol.names import Names
from durable_worker.protocol.results import StepEvent
from durable_worker.transports.base import Envelope, Transport
from durable_worker.worker.step_context import StepContext

HEARTBEAT_EVERY = timedelta(seconds=5)
MAX_WAITING = 10_000
"""Broadcasts kept while the broker is slow; the oldest are dropped first."""


class _Waiting(Struct, frozen=True):
    exchange: str
    envelope: Envelope


class LiveReports:
    """Takes reports from the event loop and from step threads; `run` sends them."""

    def __init__(self, transport: Transport, names: Names, *, instance_id: str) -> None:
        self._transport = transport
        self._names = names
        self._instance_id = instance_id
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
            at=time.time_ns() // 1_000_000,
        )
        message = EventHappened(event=progress, sender=self._instance_id)
        self._put(self._names.control, Envelope(MessageType.CONTROL, encode(message)))

    def heartbeat(self, context: StepContext) -> None:
        beat = self._alive.get(context)
        if beat is not None:
            self._put(self._names.heartbeat, _envelope(beat))

    # Steps and turns that are running

    def started(self, key: object, heartbeat: Heartbeat) -> None:
        self._alive[key] = heartbeat
        self._put(self._names.heartbeat, _envelope(heartbeat))

    def ended(self, key: object) -> None:
        self._alive.pop(key, None)

    def _put(self, exchange: str, envelope: Envelope) -> None:
        self._waiting.append(_Waiting(exchange, envelope))
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
                report = self._waiting.popleft()
                await self._transport.broadcast(report.exchange, report.envelope)

    async def _beat(self) -> None:
        while True:
            await anyio.sleep(HEARTBEAT_EVERY.total_seconds())
            for heartbeat in list(self._alive.values()):
                self._put(self._names.heartbeat, _envelope(heartbeat))


def _envelope(heartbeat: Heartbeat) -> Envelope:
    return Envelope(MessageType.HEARTBEAT, encode(heartbeat))
