"""The transport of a simulated process: one connection after the other to the simulated broker."""

import asyncio
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from durable_worker.errors import ConnectionLostError, PayloadTooLargeError, UnroutableError
from durable_worker.protocol.codec import RUN_REQUEST, MessageType
from durable_worker.protocol.runs import GetRunDetail
from durable_worker.testing.simulation.broker import Consumer, Listener, Message
from durable_worker.testing.simulation.network import Connection, Endpoint, Network, lost
from durable_worker.testing.simulation.processes import Process
from durable_worker.transports.base import (
    DEFAULT_MAX_MESSAGE_BYTES,
    RESENT_HEADER,
    Delivery,
    Envelope,
)
from durable_worker.transports.limits import check_message, check_names


class Link:
    """A `Transport`."""

    def __init__(self, network: Network, process: Process) -> None:
        self._network = network
        self._process = process
        self._label = f"{process.name}.{process.lives}"
        self.end = Endpoint(network, process, on_connected=self._restore)
        self._subscriptions: dict[_Subscription, None] = {}
        self._declared: dict[str, None] = {}

    # A Transport

    async def __aenter__(self) -> Self:
        self.end.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        self.end.close()

    @property
    def is_durable(self) -> bool:
        return True

    async def wait_connected(self) -> None:
        await self.end.wait_connected()

    async def declare(self, queues: Sequence[str]) -> None:
        self._check_open(*queues)
        for name in queues:
            self._declared[name] = None
        while True:
            connection = await self.end.ready()
            try:
                await self.end.ask(connection, "declare", lambda: self._declare(queues))
                return
            except ConnectionLostError:
                continue

    def _declare(self, queues: Sequence[str]) -> None:
        for name in queues:
            self._network.broker.declare(name)

    async def send(self, queue: str, envelope: Envelope) -> None:
        self._check(envelope, queue)
        if envelope.type == MessageType.RUN_REQUEST:
            self._note_question(envelope)
        connection = await self.end.ready()
        is_routed = await self.end.ask(
            connection, "publish", lambda: self._publish(queue, envelope)
        )
        if not is_routed:
            raise UnroutableError(queue)

    def _publish(self, queue: str, envelope: Envelope) -> bool:
        network, label = self._network, self._label
        if envelope.type == MessageType.STEP_TASK and envelope.message_id is not None:
            network.audit.task_sent(label, envelope.message_id)
        return network.broker.publish(queue, envelope, by=label)

    def _note_question(self, envelope: Envelope) -> None:
        request = RUN_REQUEST.decode(envelope.body)
        if isinstance(request.body, GetRunDetail):
            network = self._network
            network.audit.asked(
                self._process.label,
                request.request_id,
                request.body.run_id,
                at=network.scheduler.now,
            )

    async def broadcast(self, exchange: str, envelope: Envelope, *, topic: str = "") -> None:
        self._check(envelope, exchange, topic=topic)
        connection = self.end.connection
        if connection is not None:
            broker = self._network.broker
            self.end.there(
                connection, "broadcast", lambda: broker.broadcast(exchange, envelope, topic)
            )
        await asyncio.sleep(0)

    async def consume(
        self, queues: Sequence[str], handler: Callable[[Delivery], None], *, prefetch: int
    ) -> "_Subscription":
        self._check_open(*queues)
        for name in queues:
            self._declared[name] = None
        return await self._subscribe(_Subscription(self, queues, handler, None, prefetch))

    async def listen(
        self, exchange: str, handler: Callable[[Envelope], None], *, topic: str = "#"
    ) -> "_Subscription":
        self._check_open(exchange, topic)
        return await self._subscribe(_Subscription(self, [exchange], None, (handler, topic), 0))

    async def _subscribe(self, subscription: "_Subscription") -> "_Subscription":
        self._subscriptions[subscription] = None
        while not subscription.is_stopped:
            connection = await self.end.ready()
            try:
                await self.end.ask(connection, subscription, lambda: self._attach(subscription))
                break
            except ConnectionLostError:
                continue
        return subscription

    async def consumers(self, queue: str) -> int:
        self._check_open(queue)
        connection = self.end.connection
        if connection is None:
            raise lost()
        found = self._network.broker.queues
        return int(
            await self.end.ask(
                connection,
                "inspect",
                lambda: len(found[queue].consumers) if queue in found else 0,
            )
        )

    # Subscriptions

    def _restore(self) -> None:
        """On a new connection."""
        self._declare(list(self._declared))
        for subscription in list(self._subscriptions):
            self._attach(subscription)

    def _attach(self, subscription: "_Subscription") -> None:
        """At the broker."""
        connection, broker = self.end.connection, self._network.broker
        if connection is None or subscription.is_stopped or subscription in connection.consumers:
            return
        places: list[Consumer | Listener] = []
        connection.consumers[subscription] = places
        if subscription.handler is not None:
            for name in subscription.targets:
                queue = broker.declare(name)
                consumer = Consumer(
                    connection,
                    queue,
                    lambda message: self._deliver(connection, subscription, message),
                    subscription.prefetch,
                )
                places.append(consumer)
                broker.consume(consumer)
        elif subscription.listening is not None:
            handler, topic = subscription.listening
            listener = Listener(
                connection,
                subscription.targets[0],
                topic,
                lambda envelope: self.end.here(
                    connection, subscription, lambda: self._hear(subscription, handler, envelope)
                ),
            )
            places.append(listener)
            broker.listen(listener)

    def _hear(
        self,
        subscription: "_Subscription",
        handler: Callable[[Envelope], None],
        envelope: Envelope,
    ) -> None:
        if subscription.is_stopped:
            return
        if envelope.type == MessageType.RUN_REPLY and envelope.message_id is not None:
            self._network.audit.answered(self._process.label, envelope.message_id)
        handler(envelope)

    def _deliver(
        self, connection: Connection, subscription: "_Subscription", message: Message
    ) -> None:
        left_at = self._network.scheduler.now

        def arrive() -> None:
            envelope = message.envelope
            self._network.trace.note(
                self._network.scheduler.now,
                self._process.label,
                "took",
                envelope.type,
                envelope.message_id,
                message.count,
            )
            self._note_taken(message, left_at=left_at)
            assert subscription.handler is not None
            delivery = LinkDelivery(self, connection, message)
            if subscription.is_stopped:
                delivery.answer(is_done=False)
            else:
                subscription.handler(delivery)

        self.end.here(connection, subscription, arrive)

    def _note_taken(self, message: Message, *, left_at: float) -> None:
        """What the broker had sent by `left_at` says nothing of what was recorded since."""
        audit, envelope = self._network.audit, message.envelope
        message_id = envelope.message_id
        if message_id is None:
            return
        if envelope.type == MessageType.STEP_TASK:
            is_repeated = message.count > 0 or RESENT_HEADER in envelope.headers
            audit.task_taken(self._process.label, message_id, at=left_at, is_repeated=is_repeated)
        elif envelope.type == MessageType.RUN_REQUEST:
            audit.question_taken(message_id, at=self._network.scheduler.now)

    def detach(self, subscription: "_Subscription") -> None:
        self._subscriptions.pop(subscription, None)
        connection, broker = self.end.connection, self._network.broker
        if connection is None:
            return

        def leave() -> None:
            for each in connection.consumers.pop(subscription, ()):
                if isinstance(each, Consumer):
                    broker.cancel(each)
                else:
                    broker.unlisten(each)

        self.end.there(connection, subscription, leave)

    def settle(self, connection: Connection, message: Message, *, is_done: bool) -> None:
        holder, broker = message.holder, self._network.broker
        assert holder is not None
        if not connection.is_open_here:
            return

        def answer() -> None:
            if is_done:
                broker.ack(holder, message)
            else:
                broker.release(holder, message)

        self.end.there(connection, holder, answer)

    def _check_open(self, *names: str) -> None:
        self.end.check_open()
        check_names(*names)

    def _check(self, envelope: Envelope, target: str, *, topic: str = "") -> None:
        self._check_open()
        check_message(target, envelope, topic=topic)
        size = len(envelope.body)
        if size > DEFAULT_MAX_MESSAGE_BYTES:
            raise PayloadTooLargeError(size=size, limit=DEFAULT_MAX_MESSAGE_BYTES, queue=target)


class LinkDelivery:
    """A `Delivery`."""

    __slots__ = ("_connection", "_is_settled", "_link", "_message")

    def __init__(self, link: Link, connection: Connection, message: Message) -> None:
        self._link = link
        self._connection = connection
        self._message = message
        self._is_settled = False

    @property
    def queue(self) -> str:
        return self._message.queue.name

    @property
    def envelope(self) -> Envelope:
        return self._message.envelope

    @property
    def delivery_count(self) -> int:
        return self._message.count

    async def ack(self) -> None:
        self.answer(is_done=True)
        await asyncio.sleep(0)

    def ack_now(self) -> None:
        self.answer(is_done=True)

    async def release(self) -> None:
        self.answer(is_done=False)
        await asyncio.sleep(0)

    async def renew(self) -> None:
        """Deliveries of a simulated broker have no time limit."""

    def answer(self, *, is_done: bool) -> None:
        if not self._is_settled:
            self._is_settled = True
            self._link.settle(self._connection, self._message, is_done=is_done)


class _Subscription:
    """Work queues (`handler`) or one exchange (`listening`: handler and topic)."""

    __slots__ = ("_link", "handler", "is_stopped", "listening", "prefetch", "targets")

    def __init__(
        self,
        link: Link,
        targets: Sequence[str],
        handler: Callable[[Delivery], None] | None,
        listening: tuple[Callable[[Envelope], None], str] | None,
        prefetch: int,
    ) -> None:
        self._link = link
        self.targets = list(targets)
        self.handler = handler
        self.listening = listening
        self.prefetch = prefetch
        self.is_stopped = False

    async def stop(self) -> None:
        if not self.is_stopped:
            self.is_stopped = True
            self._link.detach(self)
        await asyncio.sleep(0)
