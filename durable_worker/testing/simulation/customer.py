"""The client of a world: what it sends arrives, be it more than once."""

import asyncio
from typing import Any

from durable_worker.errors import TransportError
from durable_worker.protocol.codec import MessageType, encode
from durable_worker.protocol.names import DEFAULT_NAMESPACE, Names
from durable_worker.protocol.runs import (
    AnyRequest,
    CancelRequest,
    RunRequest,
    SignalRequest,
    StartRun,
)
from durable_worker.testing.simulation.link import Link
from durable_worker.testing.simulation.plan import Cancelled, Plan, Sent, Started
from durable_worker.transports.base import Envelope


class Customer:
    def __init__(self, plan: Plan, names: Names) -> None:
        self._plan = plan
        self._names = names
        self.has_asked = False

    async def ask(self, transport: Link) -> None:
        await transport.declare([self._names.start_run, self._names.run_request])
        async with asyncio.TaskGroup() as group:
            for start in self._plan.starts:
                group.create_task(self._start(transport, start))
            for number, sent in enumerate(self._plan.signals):
                group.create_task(self._signal(transport, sent, f"signal-{number}"))
            for number, each in enumerate(self._plan.cancels):
                group.create_task(self._cancel(transport, each, f"cancel-{number}"))
        self.has_asked = True

    async def _start(self, transport: Link, start: Started) -> None:
        message = StartRun(
            tenant=DEFAULT_NAMESPACE,
            workflow=start.workflow,
            input=start.input,
            run_id=start.run_id,
        )
        await self._insist(
            transport, self._names.start_run, MessageType.START_RUN, message, start.run_id
        )

    async def _signal(self, transport: Link, sent: Sent, request_id: str) -> None:
        await asyncio.sleep(sent.after)
        body = SignalRequest(signal=sent.name, payload=sent.payload)
        await self._request(transport, body, request_id)

    async def _cancel(self, transport: Link, cancelled: Cancelled, request_id: str) -> None:
        await asyncio.sleep(cancelled.after)
        await self._request(transport, CancelRequest(run_id=cancelled.run_id), request_id)

    async def _request(self, transport: Link, body: AnyRequest, request_id: str) -> None:
        request = RunRequest(request_id=request_id, tenant=DEFAULT_NAMESPACE, body=body)
        await self._insist(
            transport, self._names.run_request, MessageType.RUN_REQUEST, request, request_id
        )

    async def _insist(
        self, transport: Link, queue: str, kind: MessageType, message: Any, message_id: str
    ) -> None:
        while True:
            try:
                await transport.send(queue, Envelope(kind, encode(message), message_id))
                return
            except TransportError:
                await asyncio.sleep(0.1)
