"""Everything that the operator receives, and how it is acknowledged."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

from durable_worker.errors import (
    DurableError,
    NoOperatorError,
    PayloadTooLargeError,
    ProtocolError,
    TenantTokenError,
    TransportError,
    UnsendableError,
)
from durable_worker.operator.admission import Admission
from durable_worker.operator.announcements import Announcer
from durable_worker.operator.intake import Inlet, Intake, check_protocol
from durable_worker.operator.jobs import Job
from durable_worker.operator.live import LiveReports, TurnWatch
from durable_worker.operator.log import log
from durable_worker.operator.presence import Presence
from durable_worker.operator.requests import Requests, refused
from durable_worker.operator.unknown import UnknownRequest, unknown_request
from durable_worker.protocol.codec import (
    CONTROL,
    HEARTBEAT,
    RUN_REQUEST,
    STEP_EVENT,
    MessageType,
)
from durable_worker.protocol.control import EngineEvent, EngineEventType, EventHappened
from durable_worker.protocol.names import Names
from durable_worker.protocol.runs import RunRequest
from durable_worker.transports.base import (
    ERROR_QUEUE_HEADER,
    Delivery,
    Envelope,
    Subscription,
    Transport,
)
from durable_worker.transports.dead_letters import dead_letter
from durable_worker.transports.floods import Floods

REQUEST_PREFETCH = 50
_BURY_RETRY_SECONDS = 1.0
_LAST_REPLIES_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Receivers:
    """Who takes in what is not a plain input."""

    requests: Requests
    live: LiveReports
    watch: TurnWatch
    presence: Presence
    announcer: Announcer
    admission: Admission
    on_progress: Callable[[EngineEvent], None]


class Consumers:
    """Subscribes, decodes, hands on, and acks what has been committed."""

    def __init__(
        self,
        transport: Transport,
        names: Names,
        *,
        receivers: Receivers,
        intake: Callable[[Inlet], Intake],
        offer: Callable[[Job], None],
    ) -> None:
        self._transport = transport
        self._names = names
        self._to = receivers
        self._intake = intake(Inlet(offer=offer, done=_acknowledge, bury=self._bury))
        self._malformed = Floods(
            partial(log.warning, "message_malformed"),
            lambda queue, count: log.warning("messages_malformed", queue=queue, count=count),
        )
        self._errands: asyncio.TaskGroup | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Answer requests until cancelled."""
        async with asyncio.TaskGroup() as errands:
            self._errands = errands
            try:
                await asyncio.Event().wait()
            finally:
                # Consumers are still being stopped, and a group that ends takes no task.
                self._errands = None

    async def subscribe(self, *, prefetch: int) -> list[Subscription]:
        names, transport, intake = self._names, self._transport, self._intake
        presence = self._to.presence
        await self._create_exchanges()
        return [
            await transport.listen(names.workers, presence.on_message),
            await transport.listen(names.heartbeat, self._on_heartbeat),
            await transport.listen(names.control, self._on_control),
            await transport.consume(
                [names.results], self._guarded(intake.on_result), prefetch=prefetch
            ),
            await transport.consume(
                [names.decisions], self._guarded(intake.on_decision), prefetch=prefetch
            ),
            await transport.consume(
                [names.step_events], self._guarded(self._on_step_event), prefetch=prefetch
            ),
            await transport.consume(
                [names.start_run], self._guarded(intake.on_start), prefetch=prefetch
            ),
            await transport.consume(
                [names.run_request], self._guarded(self._on_request), prefetch=REQUEST_PREFETCH
            ),
            await transport.consume([names.dead], intake.on_dead, prefetch=REQUEST_PREFETCH),
        ]

    def _guarded(self, take: Callable[[Delivery], None]) -> Callable[[Delivery], None]:
        def guarded(delivery: Delivery) -> None:
            try:
                take(delivery)
            except Exception as error:  # a defect of ours: the message must not be stuck unacked
                log.exception("delivery_not_handled", queue=delivery.queue)
                self._bury(delivery, f"the operator failed over it: {error!r}")

        return guarded

    async def _create_exchanges(self) -> None:
        """Those that only others listen to: they may not have the right to create them."""
        exchanges = [self._names.run_reply, self._names.tenant_events]
        if self._to.admission.is_required:
            exchanges.append(self._names.tenant_replies)
        for exchange in exchanges:
            await (await self._transport.listen(exchange, _ignore)).stop()

    async def finish(self) -> None:
        """Let open requests be answered."""
        self._malformed.close()
        if self._open:
            await asyncio.wait(self._open, timeout=_LAST_REPLIES_SECONDS)

    def _errand(self, work: Coroutine[Any, Any, None]) -> None:
        if self._errands is None:
            work.close()  # not running: the delivery stays with the broker
            return
        task = self._errands.create_task(work)
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    def _bury(self, delivery: Delivery, reason: str) -> None:
        message_id = delivery.envelope.message_id
        self._malformed.note(delivery.queue, message_id=message_id, reason=reason)
        self._errand(self._send_to_dead(delivery, reason))

    async def _send_to_dead(self, delivery: Delivery, reason: str) -> None:
        headers = {ERROR_QUEUE_HEADER: delivery.queue}
        envelope = dead_letter(delivery.envelope, reason, **headers)
        while True:
            try:
                await self._transport.declare([self._names.dead])
                await self._transport.send(self._names.dead, envelope)
                break
            except (PayloadTooLargeError, UnsendableError) as error:
                self._intake.keep(delivery, f"{reason} ({error})")
                return
            except TransportError as error:
                log.warning("dead_letter_not_sent", error=str(error))
                await asyncio.sleep(_BURY_RETRY_SECONDS)
        await delivery.ack()

    def _on_request(self, delivery: Delivery) -> None:
        try:
            check_protocol(delivery.envelope, MessageType.RUN_REQUEST)
            request = RUN_REQUEST.decode(delivery.envelope.body)
        except ProtocolError as error:
            unknown = unknown_request(delivery.envelope.body)
            if unknown is None:
                self._bury(delivery, str(error))
            else:
                self._errand(self._refuse_unknown(delivery, unknown))
            return
        self._errand(self._answer(delivery, request))

    async def _refuse_unknown(self, delivery: Delivery, unknown: UnknownRequest) -> None:
        try:
            to = self._to.admission.reader_of(delivery.envelope)
        except TenantTokenError as error:
            self._bury(delivery, str(error))
            return
        self._to.announcer.reply(unknown.refusal(), to=to)
        await delivery.ack()

    async def _answer(self, delivery: Delivery, request: RunRequest) -> None:
        to: str | None = None
        try:
            admitted = await self._to.admission.admit(request, delivery.envelope)
            to = admitted.reply_to
            reply = await self._to.requests.answer(admitted.request)
        except NoOperatorError:
            return  # not acked: the next operator answers it
        except DurableError as error:
            if isinstance(error, TenantTokenError):
                to = error.tenant
            reply = refused(request, error)
        self._to.announcer.reply(reply, to=to)
        await delivery.ack()

    def _on_step_event(self, delivery: Delivery) -> None:
        try:
            check_protocol(delivery.envelope, MessageType.STEP_EVENT)
            event = STEP_EVENT.decode(delivery.envelope.body)
        except ProtocolError as error:
            self._bury(delivery, str(error))
            return
        self._to.live.on_step_event(event)
        delivery.ack_now()

    def _on_heartbeat(self, envelope: Envelope) -> None:
        try:
            self._to.watch.on_heartbeat(HEARTBEAT.decode(envelope.body))
        except ProtocolError as error:
            log.debug("broadcast_malformed", error=str(error))

    def _on_control(self, envelope: Envelope) -> None:
        if self._to.announcer.has_sent(envelope):
            return
        try:
            message = CONTROL.decode(envelope.body)
        except ProtocolError as error:
            log.debug("broadcast_malformed", error=str(error))
            return
        if isinstance(message, EventHappened):
            self._to.live.on_progress(message.event)
            if message.event.type is EngineEventType.STEP_PROGRESS:
                self._to.on_progress(message.event)


def _acknowledge(delivery: Delivery) -> None:
    delivery.ack_now()


def _ignore(envelope: Envelope) -> None:
    pass
