"""The transport of a simulated process: one connection after the other to the simulated broker."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from random import Random
from types import TracebackType
from typing import Any, Self

from durable_worker.errors import ConnectionLostError, PayloadTooLargeError, UnroutableError
from durable_worker.protocol.codec import RUN_REQUEST, MessageType
from durable_worker.protocol.runs import GetRunDetail
from durable_worker.testing.simulation.audit import Audit
from durable_worker.testing.simulation.broker import Broker, Consumer, Listener, Message
from durable_worker.testing.simulation.chance import FaultKind, Strikes
from durable_worker.testing.simulation.loop import Scheduler
from durable_worker.testing.simulation.processes import Process
from durable_worker.testing.simulation.trace import Trace
from durable_worker.transports.base import (
    DEFAULT_MAX_MESSAGE_BYTES,
    RESENT_HEADER,
    Delivery,
    Envelope,
)
from durable_worker.transports.limits import check_message, check_names

_HEARTBEAT = timedelta(seconds=4)
"""After so much silence at the most, either side gives a connection up."""


class Network:
    """What all links share. `links` are those of living processes."""

    def __init__(
        self,
        scheduler: Scheduler,
        broker: Broker,
        *,
        strikes: Strikes,
        trace: Trace,
        random: Random,
        audit: Audit,
    ) -> None:
        self.scheduler = scheduler
        self.broker = broker
        self.strikes = strikes
        self.trace = trace
        self.random = random
        self.audit = audit
        self.links: dict[Link, None] = {}

    def latency(self) -> float:
        return 0.0002 + self.random.random() * 0.002

    def restart_broker(self) -> None:
        self.trace.note(self.scheduler.now, "broker", "RESTARTED")
        for link in list(self.links):
            link.cut("the broker was restarted")


class Connection:
    """One TCP connection. Each side learns on its own that it is gone."""

    __slots__ = ("arrivals", "consumers", "is_open_here", "is_open_there", "is_silent", "pending")

    def __init__(self) -> None:
        self.is_open_here = True
        self.is_open_there = True
        self.is_silent = False
        self.arrivals: dict[object, float] = {}
        self.pending: dict[asyncio.Future[Any], None] = {}
        self.consumers: dict[object, list[Consumer | Listener]] = {}


class Link:
    """A `Transport`. Everything in it stands still once its process is dead."""

    def __init__(self, network: Network, process: Process) -> None:
        self._network = network
        self._process = process
        self._life = process.lives
        self._connection: Connection | None = None
        self._connected = asyncio.Event()
        self._subscriptions: dict[_Subscription, None] = {}
        self._declared: dict[str, None] = {}
        self._is_entered = False
        self._is_closed = False
        self._unreachable_until = 0.0

    # A Transport

    async def __aenter__(self) -> Self:
        self._is_entered = True
        self._network.links[self] = None
        self._reconnect_in(self._network.latency())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        self.close()

    @property
    def is_durable(self) -> bool:
        return True

    async def wait_connected(self) -> None:
        self._check_open()
        await self._connected.wait()

    async def declare(self, queues: Sequence[str]) -> None:
        self._check_open(*queues)
        for name in queues:
            self._declared[name] = None
        while True:
            connection = await self._ready()
            try:
                await self._ask(connection, "declare", lambda: self._declare(queues))
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
        connection = await self._ready()
        is_routed = await self._ask(connection, "publish", lambda: self._publish(queue, envelope))
        if not is_routed:
            raise UnroutableError(queue)

    def _publish(self, queue: str, envelope: Envelope) -> bool:
        network, label = self._network, f"{self._process.name}.{self._life}"
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
        connection = self._connection
        if connection is not None:
            broker = self._network.broker
            self._there(
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
            connection = await self._ready()
            try:
                await self._ask(connection, subscription, lambda: self._attach(subscription))
                break
            except ConnectionLostError:
                continue
        return subscription

    async def consumers(self, queue: str) -> int:
        self._check_open(queue)
        connection = self._connection
        if connection is None:
            raise _lost()
        found = self._network.broker.queues
        return int(
            await self._ask(
                connection,
                "inspect",
                lambda: len(found[queue].consumers) if queue in found else 0,
            )
        )

    # The connection

    def _reconnect_in(self, seconds: float) -> None:
        at = max(self._network.scheduler.now + seconds, self._unreachable_until)
        self._network.scheduler.call_at(at, self._connect)

    def _connect(self) -> None:
        if not self._is_here or self._is_closed or self._connection is not None:
            return
        if self._network.scheduler.now < self._unreachable_until:
            self._reconnect_in(0.0)
            return
        self._connection = Connection()
        self._declare(list(self._declared))
        for subscription in list(self._subscriptions):
            self._attach(subscription)
        with self._network.scheduler.inside(self._process.loop):
            self._connected.set()

    def cut(self, reason: str) -> None:
        """Both sides see at once that the connection is gone."""
        connection = self._connection
        if connection is not None:
            self._network.trace.note(
                self._network.scheduler.now, self._process.label, "CUT", reason
            )
            self._lose_there(connection)
            self._lose_here(connection)

    def silence(self, random: Random) -> None:
        """Nothing comes through any more, and each side gives up in its own time."""
        connection = self._connection
        if connection is None or connection.is_silent:
            return
        scheduler, longest = self._network.scheduler, _HEARTBEAT.total_seconds()
        connection.is_silent = True
        here, there = random.uniform(0.2, longest), random.uniform(0.2, longest)
        self._unreachable_until = scheduler.now + random.uniform(0.1, longest)
        self._network.trace.note(
            scheduler.now, self._process.label, "SILENCED", f"{here:.2f}s here, {there:.2f}s there"
        )
        scheduler.call_at(scheduler.now + here, self._lose_here, connection)
        scheduler.call_at(scheduler.now + there, self._lose_there, connection)

    def close(self) -> None:
        """The process has ended or died: the broker sees the connection close."""
        self._is_closed = True
        self._network.links.pop(self, None)
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.is_open_here = False
            network = self._network
            if not connection.is_silent:
                # What was written before still arrives before the end does.
                end = max(
                    [network.scheduler.now + network.latency(), *connection.arrivals.values()]
                )
                network.scheduler.call_at(end, self._lose_there, connection)
            else:
                self._lose_there(connection)

    def _lose_here(self, connection: Connection) -> None:
        if not connection.is_open_here:
            return
        connection.is_open_here = False
        if not self._is_here:
            return
        with self._network.scheduler.inside(self._process.loop):
            for future in list(connection.pending):
                if not future.done():
                    future.set_exception(_lost())
            connection.pending.clear()
            if self._connection is connection:
                self._connection = None
                self._connected.clear()
        self._reconnect_in(0.05 + self._network.random.random() * 0.3)

    def _lose_there(self, connection: Connection) -> None:
        if connection.is_open_there:
            connection.is_open_there = False
            self._network.broker.lose(connection)

    # Traffic

    @property
    def _is_here(self) -> bool:
        return self._process.is_alive and self._process.lives == self._life

    async def _ready(self) -> Connection:
        while True:
            self._check_open()
            if self._connection is not None:
                return self._connection
            await self._connected.wait()

    async def _ask(self, connection: Connection, channel: object, act: Callable[[], Any]) -> Any:
        """Have something done there; what it gave. Raises `ConnectionLostError`."""
        if not connection.is_open_here:
            raise _lost()
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        connection.pending[future] = None

        def arrived() -> None:
            outcome = act()
            self._here(connection, channel, lambda: _resolve(future, outcome))

        self._there(connection, channel, arrived)
        try:
            return await future
        finally:
            connection.pending.pop(future, None)

    def _there(self, connection: Connection, channel: object, act: Callable[[], object]) -> None:
        """Happens at the broker later, if the connection still stands there then."""
        if not self._is_here or not connection.is_open_here:
            return

        def arrive() -> None:
            if connection.is_open_there:
                act()

        self._travel(connection, (channel, "there"), arrive)

    def _here(self, connection: Connection, channel: object, act: Callable[[], object]) -> None:
        """Happens in this process later, if the connection still stands here then."""

        def arrive() -> None:
            if connection.is_open_here and self._is_here:
                self._process.loop.call_soon(act)

        self._travel(connection, (channel, "here"), arrive)

    def _travel(self, connection: Connection, way: object, arrive: Callable[[], None]) -> None:
        network = self._network
        strikes, scheduler = network.strikes, network.scheduler
        if strikes.hit(FaultKind.BROKER_RESTART) is not None:
            scheduler.call_at(scheduler.now, network.restart_broker)
        if strikes.hit(FaultKind.CUT) is not None:
            scheduler.call_at(scheduler.now, self.cut, "the connection broke")
        elif (random := strikes.hit(FaultKind.SILENCE)) is not None:
            self.silence(random)
        if connection.is_silent:
            return
        seconds = network.latency()
        if (random := strikes.hit(FaultKind.DELAY)) is not None:
            slow = random.choice((0.05, 0.3, 1.0, 3.0)) * random.random()
            network.trace.note(scheduler.now, self._process.label, "DELAYED", f"{slow:.2f}s")
            seconds += slow
        at = max(scheduler.now + seconds, connection.arrivals.get(way, 0.0))
        connection.arrivals[way] = at
        scheduler.call_at(at, self._unless_silent, connection, arrive)

    def _unless_silent(self, connection: Connection, arrive: Callable[[], None]) -> None:
        if not connection.is_silent:
            arrive()

    # Subscriptions

    def _attach(self, subscription: "_Subscription") -> None:
        """At the broker."""
        connection, broker = self._connection, self._network.broker
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
                lambda envelope: self._here(
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

        self._here(connection, subscription, arrive)

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
        connection, broker = self._connection, self._network.broker
        if connection is None:
            return

        def leave() -> None:
            for each in connection.consumers.pop(subscription, ()):
                if isinstance(each, Consumer):
                    broker.cancel(each)
                else:
                    broker.unlisten(each)

        self._there(connection, subscription, leave)

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

        self._there(connection, holder, answer)

    def _check_open(self, *names: str) -> None:
        if self._is_closed or not self._is_entered:
            raise ConnectionLostError("the transport is closed; use it inside `async with`")
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


def _resolve(future: asyncio.Future[Any], outcome: object) -> None:
    if not future.done():
        future.set_result(outcome)


def _lost() -> ConnectionLostError:
    return ConnectionLostError("the connection to the broker was lost")
