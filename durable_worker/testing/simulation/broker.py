"""A simulated broker: what RabbitMQ promises of work queues and broadcasts, and no more.

Work queues keep what was confirmed. A message that nobody has acknowledged when its connection
ends is delivered again, with a higher count; beyond the limit it goes to the dead queue. Messages
of one channel arrive in order, those of different channels do not.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from durable_worker.protocol.names import Names
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

_TIME_TO_LIVE_SECONDS = 1.0
_UNUSED_SECONDS = 60.0
"""Of the turns that are for one worker, and of the queue for them."""


class Message:
    """What lies on a queue, or is with a consumer."""

    __slots__ = ("count", "envelope", "expires_at", "holder", "queue")

    def __init__(
        self,
        queue: "Queue",
        envelope: Envelope,
        count: int = 0,
        *,
        expires_at: float | None = None,
    ) -> None:
        self.queue = queue
        self.envelope = envelope
        self.count = count
        self.expires_at = expires_at
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
    __slots__ = ("consumers", "is_of_one_worker", "name", "ready", "unacked", "unused_since")

    def __init__(self, name: str, *, is_of_one_worker: bool) -> None:
        self.name = name
        self.is_of_one_worker = is_of_one_worker
        self.unused_since: float | None = None
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
        self, scheduler: Scheduler, trace: Trace, strikes: Strikes, *, names: Names
    ) -> None:
        self._scheduler = scheduler
        self._trace = trace
        self._strikes = strikes
        self._names = names
        self.queues: dict[str, Queue] = {}
        self.listeners: dict[str, list[Listener]] = {}
        self.declare(names.dead)

    def declare(self, name: str) -> Queue:
        found = self.queues.get(name)
        if found is None:
            is_of_one_worker = self._names.is_of_one_worker(name)
            found = self.queues[name] = Queue(name, is_of_one_worker=is_of_one_worker)
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
        message = Message(queue, envelope)
        queue.ready.append(message)
        if queue.is_of_one_worker:
            message.expires_at = self._scheduler.now + _TIME_TO_LIVE_SECONDS
            self._scheduler.call_at(message.expires_at, self._expire, message)

    def _expire(self, message: Message) -> None:
        """Nobody has taken it in time."""
        if message in message.queue.ready:
            message.queue.ready.remove(message)
            self._bury(message, reason="expired", told="it has expired")

    def _delete_if_unused(self, queue: Queue, since: float) -> None:
        if queue.unused_since == since:
            self._note("broker", "DELETED", queue.name, Envelope(None, b""))
            self.queues.pop(queue.name, None)

    def _note_use(self, queue: Queue) -> None:
        if not queue.is_of_one_worker:
            return
        if queue.consumers:
            queue.unused_since = None
        else:
            now = queue.unused_since = self._scheduler.now
            self._scheduler.call_at(now + _UNUSED_SECONDS, self._delete_if_unused, queue, now)

    def _bury(self, message: Message, *, reason: str, told: str) -> None:
        queue, envelope = message.queue, message.envelope
        headers = {**envelope.headers, ERROR_HEADER: told, DEATH_HEADER: reason}
        self._note("broker", "DEAD-LETTERED", queue.name, envelope)
        dead = self.queues[self._names.dead]
        self._put(dead, replace(envelope, headers=headers))
        self.pump(dead)

    def consume(self, consumer: Consumer) -> None:
        consumer.queue.consumers.append(consumer)
        self._note_use(consumer.queue)
        self.pump(consumer.queue)

    def cancel(self, consumer: Consumer) -> None:
        if consumer in consumer.queue.consumers:
            consumer.queue.consumers.remove(consumer)
            self._note_use(consumer.queue)

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
        for queue in [*self.queues.values()]:
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
            if gone:
                self._note_use(queue)
        for listeners in self.listeners.values():
            listeners[:] = [each for each in listeners if each.connection is not connection]

    def _give_back(self, messages: Sequence[Message]) -> None:
        for message in reversed(messages):
            queue, count = message.queue, message.count + 1
            now, expires_at = self._scheduler.now, message.expires_at
            if queue.name != self._names.dead and count > DELIVERY_LIMIT:
                told = f"queue {queue.name!r} delivered it {count} times without success"
                self._bury(message, reason=DELIVERY_LIMIT_REASON, told=told)
            elif expires_at is not None and expires_at <= now:
                self._bury(message, reason="expired", told="it has expired")
            else:
                again = Message(queue, message.envelope, count, expires_at=expires_at)
                queue.ready.appendleft(again)
                if expires_at is not None:
                    self._scheduler.call_at(expires_at, self._expire, again)

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
        if self._names.is_of_one_worker(where):
            where = self._names.turns("")  # its name has the id of a real process in it
        told: list[Any] = [envelope.type, envelope.message_id]
        self._trace.note(self._scheduler.now, who, what, where, *told)


def _swap(ready: deque[Message]) -> None:
    """The second first; but of one message sent twice, the copy stays behind the original."""
    first, second = ready[0], ready[1]
    if first.envelope.message_id != second.envelope.message_id:
        ready[0], ready[1] = second, first
