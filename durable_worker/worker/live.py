"""What a worker broadcasts while it works: heartbeats and step events; at most once, in order."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import timedelta

import anyio
import structlog
from msgspec import structs

from durable_worker.clock import Clock
from durable_worker.edge.errors import SealError
from durable_worker.errors import PayloadTooLargeError, UnsendableError
from durable_worker.protocol.codec import MessageType, encode
from durable_worker.protocol.control import EngineEvent, EngineEventType, EventHappened, Heartbeat
from durable_worker.protocol.names import Names
from durable_worker.protocol.results import StepEvent
from durable_worker.protocol.tasks import StepTask, WorkflowTask
from durable_worker.transports.base import Envelope, Transport
from durable_worker.worker.step_context import StepContext

log = structlog.get_logger("durable_worker.worker")

SealEvent = Callable[[str, StepEvent], Awaitable[StepEvent]]
"""Of which run, and what its step says."""

HEARTBEAT_EVERY = timedelta(seconds=5)
MAX_WAITING = 10_000
"""Broadcasts kept while the broker is slow; the oldest are dropped first."""


class LiveReports:
    """Takes reports from the event loop and from step threads; `run` sends them.

    What has ended before anything could be sent, and has said nothing, is not told of.
    """

    def __init__(
        self, transport: Transport, names: Names, *, instance_id: str, seal: SealEvent, clock: Clock
    ) -> None:
        self._transport = transport
        self._names = names
        self._instance_id = instance_id
        self._seal = seal
        self._clock = clock
        self._waiting: deque[EngineEvent | Heartbeat] = deque(maxlen=MAX_WAITING)
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._alive: dict[object, StepTask | WorkflowTask] = {}
        self._untold: dict[object, StepTask | WorkflowTask] = {}
        self._is_look_due = False

    async def run(self) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(self._send_waiting)
            group.start_soon(self._beat)

    # StepReporter

    def event(self, context: StepContext, event: StepEvent) -> None:
        self._tell_of(context)
        progress = EngineEvent(
            type=EngineEventType.STEP_PROGRESS,
            run_id=context.run_id,
            seq=context.seq,
            name=context.name,
            event=event,
            at=self._clock.now(),
        )
        self._put(progress)

    def heartbeat(self, context: StepContext) -> None:
        self._tell_of(context)
        task = self._alive.get(context)
        if task is not None:
            self._put(_heartbeat(task))

    # Steps and turns that are running

    def started(self, key: object, task: StepTask | WorkflowTask) -> None:
        self._alive[key] = self._untold[key] = task
        if not self._is_look_due:
            self._is_look_due = True
            self._loop.call_soon(self._look)

    def ended(self, key: object) -> None:
        self._alive.pop(key, None)
        self._untold.pop(key, None)

    def _look(self) -> None:
        self._is_look_due = False
        if self._untold:  # most have ended meanwhile
            self._wake.set()

    def _tell_of(self, key: object) -> None:
        task = self._untold.pop(key, None)
        if task is not None:
            self._put(_heartbeat(task))

    def _put(self, report: EngineEvent | Heartbeat) -> None:
        self._waiting.append(report)
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
            for key in [*self._untold]:
                self._tell_of(key)
            while self._waiting:
                await self._send(self._waiting.popleft())

    async def _send(self, report: EngineEvent | Heartbeat) -> None:
        try:
            if isinstance(report, Heartbeat):
                beat = Envelope(MessageType.HEARTBEAT, encode(report))
                await self._transport.broadcast(self._names.heartbeat, beat)
            else:
                await self._transport.broadcast(self._names.control, await self._sealed(report))
        except (PayloadTooLargeError, UnsendableError, SealError) as error:
            log.debug("live_event_lost", run_id=report.run_id, reason=str(error))

    async def _sealed(self, report: EngineEvent) -> Envelope:
        if report.event is not None:
            event = await self._seal(report.run_id, report.event)
            report = structs.replace(report, event=event)
        message = EventHappened(event=report, sender=self._instance_id)
        return Envelope(MessageType.CONTROL, encode(message))

    async def _beat(self) -> None:
        while True:
            await anyio.sleep(HEARTBEAT_EVERY.total_seconds())
            for task in [*self._alive.values()]:
                self._put(_heartbeat(task))


def _heartbeat(task: StepTask | WorkflowTask) -> Heartbeat:
    match task:
        case StepTask():
            return Heartbeat(
                run_id=task.run_id, seq=task.seq, step_id=task.step_id, group=task.group
            )
        case WorkflowTask():
            return Heartbeat(run_id=task.run_id, seq=0, group=task.group)
