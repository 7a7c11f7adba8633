"""Talks with the workers: who they are, whether they live, what nobody serves."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from durable_worker.clock import Clock
from durable_worker.errors import ProtocolError, StoreError, TransportError
from durable_worker.operator.jobs import Job
from durable_worker.operator.log import log
from durable_worker.operator.registry import Registry
from durable_worker.operator.strangers import Strangers
from durable_worker.protocol.codec import (
    WORKER_BEAT,
    WORKER_DESCRIPTOR,
    MessageType,
    encode,
)
from durable_worker.protocol.descriptor import OUR_PROTOCOL, Who, WorkerAnnouncement
from durable_worker.protocol.names import Names, routing_token
from durable_worker.protocol.runs import RunQuery, RunStatus
from durable_worker.stores.base import Store
from durable_worker.stores.inputs import Unparked, WorkflowAvailable
from durable_worker.stores.records import Run
from durable_worker.transports.base import Envelope, Transport

WHO_INTERVAL_SECONDS = 5.0
MISSING_STEP_PATIENCE_SECONDS = 10.0
MISSING_WORKFLOW_PATIENCE_SECONDS = 3.0
_CHECK_SECONDS = 0.5
_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class _Missing:
    """A name that nobody served at `since` (monotonic)."""

    name: str
    since: float
    is_workflow: bool


class Presence:
    """Listens on the workers exchange. Runs that wait for a workflow get it when it appears."""

    def __init__(
        self,
        store: Store,
        transport: Transport,
        *,
        names: Names,
        registry: Registry,
        clock: Clock,
        instance_id: str,
        offer: Callable[[Job], None],
    ) -> None:
        self._store = store
        self._transport = transport
        self._names = names
        self._registry = registry
        self._clock = clock
        self._instance_id = instance_id
        self._offer = offer
        self._appeared: asyncio.Queue[str | None] = asyncio.Queue()
        self._strangers = Strangers(clock.monotonic)
        self._missing: dict[str, _Missing] = {}
        self._reported: set[str] = set()
        self._last_who = -WHO_INTERVAL_SECONDS
        self._is_who_due = True
        self._renewed: set[str] = set()
        """Workflows of workers that have come and may have other code than those before."""

    def on_message(self, envelope: Envelope) -> None:
        try:
            match envelope.type:
                case MessageType.WORKER_BEAT:
                    beat = WORKER_BEAT.decode(envelope.body)
                    if not self._registry.on_beat(beat):
                        self._is_who_due = True
                case MessageType.WORKER_DESCRIPTOR:
                    self._on_announcement(WORKER_DESCRIPTOR.decode(envelope.body))
                case _:
                    pass
        except ProtocolError as error:
            self._strangers.not_understood(envelope, error)

    def _on_announcement(self, announcement: WorkerAnnouncement) -> None:
        descriptor = announcement.descriptor
        if self._strangers.met(descriptor):
            self._is_who_due = True
        is_new = not self._registry.knows(descriptor.instance_id)
        for workflow in self._registry.on_announcement(announcement):
            if is_new:
                self._renewed.add(workflow)
            self._appeared.put_nowait(workflow)
        log.debug(
            "worker_announced",
            worker=descriptor.instance_id,
            workflows=descriptor.workflows,
            steps=descriptor.steps,
        )

    def need(self, token: str) -> None:
        """A task goes to `token`; say so if no worker for it appears."""
        self._need(token, is_workflow=False)

    def need_workflow(self, run: Run) -> None:
        """A run waits for its workflow; say so if no worker for it appears."""
        version = self._registry.newest_version(run.workflow, run.partition)
        if version is not None:
            self._offer(Job(input=WorkflowAvailable(run_id=run.id, version=version)))
        else:
            self._need(routing_token(run.workflow, run.partition), is_workflow=True)

    def look_again(self) -> None:
        """Runs may wait for their workflows that another operator knew of."""
        self._appeared.put_nowait(None)

    def _need(self, token: str, *, is_workflow: bool) -> None:
        if token in self._reported or token in self._missing or self._registry.serves(token):
            return
        self._missing[token] = _Missing(token, self._clock.monotonic(), is_workflow)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._serve_waiting_runs())
            group.create_task(self._look_after_workers())

    async def _serve_waiting_runs(self) -> None:
        self.look_again()
        while True:
            workflow = await self._appeared.get()
            if workflow is None:
                await self._find_waiting()
                continue
            try:
                waiting = await self._store.unserved_runs(workflow, limit=_PAGE)
                await self._try_parked(workflow)
            except StoreError as error:
                log.error("store_read_failed", error=str(error))
                await self._clock.sleep(_CHECK_SECONDS)
                self._appeared.put_nowait(workflow)
                continue
            for run in waiting:
                self.need_workflow(run)
            if len(waiting) == _PAGE and self._is_served(waiting[0]):
                # The rest is readable once these have got their first turn.
                await self._clock.sleep(_CHECK_SECONDS)
                self._appeared.put_nowait(workflow)

    async def _find_waiting(self) -> None:
        try:
            for workflow in await self._store.unserved_workflows():
                self._appeared.put_nowait(workflow)
        except StoreError as error:
            log.error("store_read_failed", error=str(error))
            await self._clock.sleep(_CHECK_SECONDS)
            self.look_again()

    async def _try_parked(self, workflow: str) -> None:
        """Those of one page; the rest has its timers."""
        if workflow not in self._renewed:
            return
        query = RunQuery(workflow=workflow, status=RunStatus.BLOCKED, limit=_PAGE)
        for run in await self._store.list_runs(query):
            self._offer(Job(input=Unparked(run_id=run.id, is_guess=True)))
        self._renewed.discard(workflow)

    def _is_served(self, run: Run) -> bool:
        return self._registry.newest_version(run.workflow, run.partition) is not None

    async def _look_after_workers(self) -> None:
        while True:
            now = self._clock.monotonic()
            is_due = self._is_who_due or not self._registry.live()
            if is_due and now - self._last_who >= WHO_INTERVAL_SECONDS:
                self._is_who_due, self._last_who = False, now
                await self._ask_who()
            self._report_missing(now)
            await self._clock.sleep(_CHECK_SECONDS)

    async def _ask_who(self) -> None:
        message = Who(sender=self._instance_id, protocol=OUR_PROTOCOL)
        try:
            await self._transport.broadcast(
                self._names.workers, Envelope(type=MessageType.WHO, body=encode(message))
            )
        except TransportError as error:
            self._is_who_due = True
            log.debug("who_not_sent", error=str(error))

    def _report_missing(self, now: float) -> None:
        for token, missing in list(self._missing.items()):
            if self._registry.serves(token):
                del self._missing[token]
                continue
            patience = (
                MISSING_WORKFLOW_PATIENCE_SECONDS
                if missing.is_workflow
                else MISSING_STEP_PATIENCE_SECONDS
            )
            if now - missing.since >= patience:
                del self._missing[token]
                self._reported.add(token)
                _warn(missing, queue=self._names.tasks(token))


def _warn(missing: _Missing, *, queue: str) -> None:
    if missing.is_workflow:
        log.warning(
            "workflow_without_worker",
            workflow=missing.name,
            queue=queue,
            hint="runs of it stay pending until a worker that registers this workflow is started",
        )
    else:
        log.warning(
            "task_without_worker",
            handler=missing.name,
            queue=queue,
            hint="its tasks wait in the queue until a worker that registers this name is started",
        )
