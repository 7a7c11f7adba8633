"""A simulated broker: what RabbitMQ promises of work queues and broadcasts, and no more.

Work queues keep what was confirmed. A message that nobody has acknowledged when its connection
ends is delivered again, with a higher count; beyond the limit it goes to the dead queue. Messages
of one channel arrive in order, those of different channels do not.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from durable_worker.testing.simulation.chance import FaultKind, Strikes
from durable_worker.testing.simulation.loop import Scheduler
from durable_worker.testing.simulation.trace import Trace
from durable_worker.transports.base import (
    DEATH_HEADER,
    DELIVERY_LIMIT,
    DELIVERY_LIMIT_REASON,
    ERROR_HEADER,
    Envelope,
)
from durable_worker.transports.topics import matches_topic


class Message:
    """What lies on a queue, or is with a consumer."""

    __slots__ = ("count", "envelope", "holder", "queue")

    def __init__(self, queue: "Queue", envelope: Envelope, count: int = 0) -> None:
        self.queue = queue
        self.envelope = envelope
        self.count = count
        self.holder: Consumer | None = None


class Consumer:
    """One consumer of one queue over one connection."""

    __slots__ = ("connection", "deliver", "held", "prefetch", "queue")

    def __init__(
        self,
        connection: object,
        queue: "Queue",
        deliver: Callable[[Message], None],
        prefetch: int,
    ) -> None:
        self.connection = connection
        self.queue = queue
        self.deliver = deliver
        self.prefetch = prefetch
        self.held: dict[Message, None] = {}


class Queue:
    __slots__ = ("consumers", "name", "ready", "unacked")

    def __init__(self, name: str) -> None:
        self.name = name
        self.ready: deque[Message] = deque()
        self.unacked: dict[Message, None] = {}
        self.consumers: deque[Consumer] = deque()

    @property
    def depth(self) -> int:
        return len(self.ready) + len(self.unacked)


class Listener:
    __slots__ = ("connection", "deliver", "exchange", "topic")

    def __init__(
        self, connection: object, exchange: str, topic: str, deliver: Callable[[Envelope], None]
    ) -> None:
        self.connection = connection
        self.exchange = exchange
        self.topic = topic
        self.deliver = deliver


class Broker:
    def __init__(
        self, scheduler: Scheduler, trace: Trace, strikes: Strikes, *, dead_queue: str
    ) -> None:
        self._scheduler = scheduler
        self._trace = trace
        self._strikes = strikes
        self._dead_queue = dead_queue
        self.queues: dict[str, Queue] = {}
        self.listeners: dict[str, list[Listener]] = {}
        self.declare(dead_queue)

    def declare(self, name: str) -> Queue:
        found = self.queues.get(name)
        if found is None:
            found = self.queues[name] = Queue(name)
        return found

    def publish(self, name: str, envelope: Envelope, *, by: str) -> bool:
        """False if there is no such queue."""
        queue = self.queues.get(name)
        if queue is None:
            return False
        self._put(queue, envelope)
        self._note(by, "published", name, envelope)
        if self._strikes.hit(FaultKind.DUPLICATE) is not None:
            self._note("broker", "DUPLICATED", name, envelope)
            queue.ready.append(Message(queue, envelope, 1))
        self.pump(queue)
        return True

    def _put(self, queue: Queue, envelope: Envelope) -> None:
        queue.ready.append(Message(queue, envelope))

    def consume(self, consumer: Consumer) -> None:
        consumer.queue.consumers.append(consumer)
        self.pump(consumer.queue)

    def cancel(self, consumer: Consumer) -> None:
        if consumer in consumer.queue.consumers:
            consumer.queue.consumers.remove(consumer)

    def ack(self, consumer: Consumer, message: Message) -> None:
        if message in consumer.held:
            del consumer.held[message]
            del message.queue.unacked[message]
            self.pump(message.queue)

    def release(self, consumer: Consumer, message: Message) -> None:
        if message in consumer.held:
            del consumer.held[message]
            del message.queue.unacked[message]
            self._give_back([message])
            self.pump(message.queue)

    def lose(self, connection: object) -> None:
        """The connection is gone: its consumers end, and what they held is ready again."""
        for queue in self.queues.values():
            gone = [each for each in queue.consumers if each.connection is connection]
            for consumer in gone:
                queue.consumers.remove(consumer)
            held = [
                message
                for message in queue.unacked
                if message.holder is not None and message.holder.connection is connection
            ]
            for message in held:
                del queue.unacked[message]
                if message.holder is not None:
                    message.holder.held.pop(message, None)
            self._give_back(held)
            if gone or held:
                self.pump(queue)
        for listeners in self.listeners.values():
            listeners[:] = [each for each in listeners if each.connection is not connection]

    def _give_back(self, messages: Sequence[Message]) -> None:
        for message in reversed(messages):
            queue, count = message.queue, message.count + 1
            if queue.name != self._dead_queue and count > DELIVERY_LIMIT:
                reason = f"queue {queue.name!r} delivered it {count} times without success"
                headers = {
                    **message.envelope.headers,
                    ERROR_HEADER: reason,
                    DEATH_HEADER: DELIVERY_LIMIT_REASON,
                }
                self._note("broker", "DEAD-LETTERED", queue.name, message.envelope)
                dead = self.queues[self._dead_queue]
                self._put(dead, replace(message.envelope, headers=headers))
                self.pump(dead)
            else:
                queue.ready.appendleft(Message(queue, message.envelope, count))

    def pump(self, queue: Queue) -> None:
        while queue.ready:
            consumer = self._next_with_room(queue)
            if consumer is None:
                return
            if len(queue.ready) > 1 and self._strikes.hit(FaultKind.REORDER) is not None:
                _swap(queue.ready)
            message = queue.ready.popleft()
            message.holder = consumer
            consumer.held[message] = None
            queue.unacked[message] = None
            consumer.deliver(message)

    def _next_with_room(self, queue: Queue) -> Consumer | None:
        for _ in range(len(queue.consumers)):
            consumer = queue.consumers[0]
            queue.consumers.rotate(-1)
            if len(consumer.held) < consumer.prefetch:
                return consumer
        return None

    def listen(self, listener: Listener) -> None:
        self.listeners.setdefault(listener.exchange, []).append(listener)

    def unlisten(self, listener: Listener) -> None:
        listeners = self.listeners.get(listener.exchange, [])
        if listener in listeners:
            listeners.remove(listener)

    def broadcast(self, exchange: str, envelope: Envelope, topic: str) -> None:
        for listener in list(self.listeners.get(exchange, ())):
            if not matches_topic(listener.topic, topic):
                continue
            if self._strikes.hit(FaultKind.BROADCAST_LOST) is not None:
                self._note("broker", "LOST", exchange, envelope)
                continue
            listener.deliver(envelope)

    def _note(self, who: str, what: str, where: str, envelope: Envelope) -> None:
        told: list[Any] = [envelope.type, envelope.message_id]
        self._trace.note(self._scheduler.now, who, what, where, *told)


def _swap(ready: deque[Message]) -> None:
    """The second first; but of one message sent twice, the copy stays behind the original."""
    first, second = ready[0], ready[1]
    if first.envelope.message_id != second.envelope.message_id:
        ready[0], ready[1] = second, first
