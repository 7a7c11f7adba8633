"""Broadcasts of the operator: cancellations and live events, sent and forgotten."""

import asyncio
from collections import deque
from collections.abc import Iterable

from msgspec import Raw, field

from durable_worker.errors import PayloadTooLargeError, TransportError
from durable_worker.operator.log import log
from durable_worker.operator.transitions.effects import BroadcastCancel, Emit
from durable_worker.operator.transitions.events import event_of
from durable_worker.protocol.base import Message
from durable_worker.protocol.codec import MessageType, encode
from durable_worker.protocol.control import (
    CancelRun,
    CancelSteps,
    ControlMessage,
    EngineEvent,
    EngineEventType,
)
from durable_worker.protocol.names import Names
from durable_worker.protocol.runs import RequestError, RequestResult, RunReply
from durable_worker.transports.base import Envelope, Transport

MAX_BACKLOG = 1_000
"""Waiting broadcasts above which events of steps are dropped: listeners see runs at least."""

_OF_STEPS = frozenset(
    {EngineEventType.STEP_STARTED, EngineEventType.STEP_COMPLETED, EngineEventType.STEP_FAILED}
)


class _EventHappened(ControlMessage, frozen=True, kw_only=True, tag="event"):
    """An `EventHappened` whose event is JSON already."""

    event: Raw
    sender: str = field(name="from")


class _Sender(Message, frozen=True, kw_only=True):
    sender: str = field(name="from")


class _TenantEvent(Message, frozen=True, kw_only=True):
    tenant: str
    event: Raw


class Announcer:
    """`run` broadcasts until it is cancelled. Nothing waits for it."""

    def __init__(
        self, transport: Transport, names: Names, *, instance_id: str, tells_events: bool = True
    ) -> None:
        self._tells_events = tells_events
        self._transport = transport
        self._names = names
        self._instance_id = instance_id
        self._waiting: deque[tuple[str, str, Envelope]] = deque()
        self._wake = asyncio.Event()
        # As every message that is encoded here ends.
        self._signature = encode(_Sender(sender=instance_id))[1:]

    def has_sent(self, envelope: Envelope) -> bool:
        """Whether this broadcast has come back: who listens hears himself too."""
        return envelope.body.endswith(self._signature)

    def cancel(self, told: BroadcastCancel) -> None:
        run_id, sender = told.run_id, self._instance_id
        seqs = None if told.seqs is None else list(told.seqs)
        message: CancelRun | CancelSteps = CancelRun(run_id=run_id, seqs=seqs, sender=sender)
        if told.given_up:
            message = CancelSteps(run_id=run_id, steps=list(told.given_up), sender=sender)
        envelope = Envelope(type=MessageType.CONTROL, body=encode(message))
        self._waiting.appendleft((self._names.control, "", envelope))
        self._wake.set()

    def events(self, events: Iterable[Emit]) -> None:
        if not self._tells_events:
            return
        for each in events:
            if len(self._waiting) > MAX_BACKLOG and each.type in _OF_STEPS:
                continue
            event = Raw(encode(event_of(each)))
            control = encode(_EventHappened(event=event, sender=self._instance_id))
            self._waiting.append(
                (self._names.control, "", Envelope(type=MessageType.CONTROL, body=control))
            )
            self._tell_tenant(each.namespace, event)
        self._wake.set()

    def progress(self, event: EngineEvent) -> None:
        """What a worker has told everybody but the tenant."""
        if self._tells_events and len(self._waiting) <= MAX_BACKLOG:
            self._tell_tenant(event.namespace, Raw(encode(event)))
            self._wake.set()

    def _tell_tenant(self, namespace: str | None, event: Raw) -> None:
        tenant = namespace or "default"
        told = encode(_TenantEvent(tenant=tenant, event=event))
        envelope = Envelope(type=MessageType.TENANT_EVENT, body=told)
        self._waiting.append((self._names.tenant_events, tenant, envelope))

    def reply(self, reply: RunReply, *, to: str | None = None) -> None:
        """`to`: the tenant who alone is told."""
        envelope = Envelope(
            type=MessageType.RUN_REPLY, body=encode(reply), message_id=reply.request_id
        )
        exchange = self._names.run_reply if to is None else self._names.tenant_replies
        self._waiting.appendleft((exchange, to or "", envelope))
        self._wake.set()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.flush()

    async def flush(self) -> None:
        while self._waiting:
            exchange, topic, envelope = self._waiting.popleft()
            try:
                await self._transport.broadcast(exchange, envelope, topic=topic)
            except PayloadTooLargeError as error:
                if envelope.type == MessageType.RUN_REPLY and envelope.message_id is not None:
                    self.reply(_too_large(envelope.message_id, error), to=topic or None)
                else:
                    log.warning("broadcast_too_large", exchange=exchange, error=str(error))
            except TransportError as error:
                log.debug("broadcast_lost", exchange=exchange, error=str(error))


def _too_large(request_id: str, error: PayloadTooLargeError) -> RunReply:
    refusal = RequestError(message=str(error), code=error.code)
    return RunReply(request_id=request_id, result=RequestResult(ok=False, error=refusal))
