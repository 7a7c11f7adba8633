"""The transport over RabbitMQ."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from random import Random
from types import TracebackType
from typing import Literal, Self

from durable_worker.errors import ConnectionLostError, TransportError, UsageError
from durable_worker.protocol.names import Names
from durable_worker.transports.base import DEFAULT_MAX_MESSAGE_BYTES, Delivery, Envelope, Told
from durable_worker.transports.limits import check_message, check_names
from durable_worker.transports.rabbitmq.address import AddressSource, TlsOptions, UrlSource
from durable_worker.transports.rabbitmq.alarms import AlarmWatch
from durable_worker.transports.rabbitmq.amqp.properties import write_properties
from durable_worker.transports.rabbitmq.backoff import Backoff
from durable_worker.transports.rabbitmq.broadcaster import Broadcaster
from durable_worker.transports.rabbitmq.consumer import Consumer
from durable_worker.transports.rabbitmq.copies import given_up
from durable_worker.transports.rabbitmq.declarations import Declarations
from durable_worker.transports.rabbitmq.delivery import RabbitDelivery
from durable_worker.transports.rabbitmq.held import HELD_FOR, Held
from durable_worker.transports.rabbitmq.inspection import Inspection
from durable_worker.transports.rabbitmq.lanes import Lane
from durable_worker.transports.rabbitmq.messages import to_properties
from durable_worker.transports.rabbitmq.publisher import Publisher
from durable_worker.transports.rabbitmq.sources import Broadcast, Source, WorkQueue
from durable_worker.transports.rabbitmq.states import StateListener, TransportState
from durable_worker.transports.rabbitmq.supervisor import (
    ConnectionOptions,
    Roster,
    Supervisor,
)

DRAIN_SECONDS = 5.0
"""How long a transport that is left waits for outstanding confirms."""


class RabbitTransport:
    """RabbitMQ under our own supervision; enter it once.

    `url` as in `amqp://user:password@host:port/vhost`, or a function that is asked for it before
    each attempt to connect, such as a `UrlFile`; `tls` for `amqps`; `heartbeat` in seconds (a
    silent broker is given up after a little more than three of them); `watchdog` is how often each
    consumer is looked after; `held_for` is how long messages that were renewed wait for this
    process to come back once its connection is lost, before another process gets them; `on_state`
    is called on the event loop with each change of state and must not raise; `lane` is the AMQP
    client that everything goes over, see `Lane`. Raises `UsageError`
    for a URL or files that cannot be read.
    """

    def __init__(
        self,
        url: UrlSource,
        *,
        names: Names,
        tls: TlsOptions | None = None,
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
        connection_name: str = "durable-worker",
        heartbeat: int = 10,
        lane: Lane | Literal["fast", "aio-pika"] = Lane.FAST,
        watchdog: timedelta = timedelta(seconds=5),
        held_for: timedelta = HELD_FOR,
        on_state: StateListener | None = None,
        random: Random | None = None,
    ) -> None:
        self._options = ConnectionOptions(
            _checked(url, tls), connection_name, heartbeat, _lane(lane)
        )
        self._names = names
        self._max_message_bytes = max_message_bytes
        self._watchdog = watchdog
        self._on_state = on_state
        self._consuming = Roster("consume")
        self._publishing = Roster("publish")
        self._supervisor = Supervisor(
            self._options,
            (self._consuming, self._publishing),
            backoff=Backoff(random or Random()),
            emit=self._emit,
        )
        self._declarations = Declarations(names, emit=self._emit)
        self._publisher = Publisher(
            ready=self._declarations.restored, on_unroutable=self._declarations.doubt
        )
        self._broadcaster = Broadcaster(names)
        self._inspection = Inspection()
        self._held = Held(
            names,
            consuming=self._consuming,
            publishing=self._publishing,
            held_for=held_for,
            period=watchdog,
            emit=self._emit,
        )
        self._subscriptions: dict[_Subscription, None] = {}
        self._group = asyncio.TaskGroup()
        self._running: asyncio.Task[None] | None = None
        self._is_closed = False

    async def __aenter__(self) -> Self:
        alarms = AlarmWatch(period=self._watchdog, emit=self._emit)
        for resident in (self._declarations, self._publisher, self._broadcaster, alarms):
            self._publishing.add(resident)
        self._consuming.add(self._inspection)
        await self._group.__aenter__()
        self._running = self._group.create_task(self._supervisor.run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        self._is_closed = True
        try:
            if self._supervisor.is_connected:
                await self._drain()
        finally:
            if self._running is not None:
                self._supervisor.stop(self._running, _closed())
            # An error of the caller's passes as it is; only a cancellation may be the group's own.
            if isinstance(error, asyncio.CancelledError):
                await self._group.__aexit__(kind, error, trace)
            else:
                await self._group.__aexit__(None, None, None)

    @property
    def is_durable(self) -> bool:
        return True

    async def wait_connected(self) -> None:
        await self._supervisor.wait_connected()

    async def declare(self, queues: Sequence[str]) -> None:
        self._check_open(*queues)
        await self._declarations.ensure(queues)

    async def consumers(self, queue: str) -> int:
        self._check_open(queue)
        return await self._inspection.consumers(queue)

    async def send(self, queue: str, envelope: Envelope) -> None:
        self._check(envelope, queue)
        properties = to_properties(envelope, persistent=True)
        await self._publisher.publish(queue, envelope.body, properties)

    def post(self, queue: str, envelope: Envelope, told: Told) -> bool:
        if self._is_closed:
            return False
        check_message(queue, envelope, max_bytes=self._max_message_bytes)
        properties = to_properties(envelope, persistent=True)
        return self._publisher.post(queue, envelope.body, properties, told)

    async def broadcast(self, exchange: str, envelope: Envelope, *, topic: str = "") -> None:
        self._check(envelope, exchange, topic=topic)
        await self._broadcaster.broadcast(exchange, envelope, topic=topic)

    async def consume(
        self, queues: Sequence[str], handler: Callable[[Delivery], None], *, prefetch: int
    ) -> "_Subscription":
        self._check_open(*queues)
        sources = [
            WorkQueue(
                queue,
                handler,
                prefetch,
                dead=self._names.dead,
                declare=self._declarations.declare_over,
                renew=self._held.renew,
                give_up=self._give_up,
            )
            for queue in queues
        ]
        subscription = await self._subscribe(sources)
        await self._declarations.ensure(())
        return subscription

    async def listen(
        self, exchange: str, handler: Callable[[Envelope], None], *, topic: str = "#"
    ) -> "_Subscription":
        self._check_open(exchange, topic)
        return await self._subscribe([Broadcast(exchange, handler, topic, self._names)])

    async def _give_up(self, delivery: RabbitDelivery) -> None:
        """It was delivered too often: do as the broker does with what it has counted itself."""
        properties = write_properties(given_up(delivery.properties, queue=delivery.queue))
        try:
            await self._publisher.publish(self._names.dead, delivery.envelope.body, properties)
        except TransportError:
            await delivery.release()
        else:
            await delivery.ack()

    async def _subscribe(self, sources: Sequence[Source]) -> "_Subscription":
        consumers = [Consumer(source, period=self._watchdog, emit=self._emit) for source in sources]
        subscription = _Subscription(consumers, self._consuming, self._subscriptions)
        try:
            for consumer in consumers:
                await consumer.attached()
        except BaseException:
            await subscription.stop()
            raise
        return subscription

    async def _drain(self) -> None:
        with suppress(TimeoutError, TransportError):
            async with asyncio.timeout(DRAIN_SECONDS):
                for subscription in [*self._subscriptions]:
                    await subscription.stop()
                await self._publisher.drained()
                await self._held.close(self._inspection)

    def _check_open(self, *names: str) -> None:
        if self._is_closed or self._running is None:
            raise _closed()
        check_names(*names)

    def _check(self, envelope: Envelope, target: str, *, topic: str = "") -> None:
        if self._is_closed or self._running is None:
            raise _closed()
        check_message(target, envelope, topic=topic, max_bytes=self._max_message_bytes)

    def _emit(self, state: TransportState) -> None:
        if self._on_state is not None:
            self._on_state(state)


class _Subscription:
    """The consumers of one `consume` or `listen`."""

    def __init__(
        self,
        consumers: Sequence[Consumer],
        roster: Roster,
        register: "dict[_Subscription, None]",
    ) -> None:
        self._consumers = consumers
        self._roster = roster
        self._register = register
        register[self] = None
        for consumer in consumers:
            roster.add(consumer)

    async def stop(self) -> None:
        self._register.pop(self, None)
        for consumer in self._consumers:
            self._roster.remove(consumer)
            consumer.ask_to_stop()
        for consumer in self._consumers:
            await consumer.stopped()


def _checked(url: UrlSource, tls: TlsOptions | None) -> AddressSource:
    """Files that cannot be used are a mistake to tell of now, not a broker to wait for."""
    source = AddressSource(url, tls=tls)
    if source.latest.tls is not None:
        from durable_worker.transports.rabbitmq.tls import client_context

        client_context(source.latest.tls)
    return source


def _lane(stated: str) -> Lane:
    try:
        return Lane(stated)
    except ValueError:
        raise UsageError(f"there is no lane {stated!r}: expected fast, or aio-pika.") from None


def _closed() -> ConnectionLostError:
    return ConnectionLostError("the transport is closed; use it inside `async with`")
