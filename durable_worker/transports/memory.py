"""A broker inside one process: the semantics of the work queues and broadcasts, nothing kept."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from msgspec.structs import replace

from durable_worker.errors import ConnectionLostError, UnroutableError
from durable_worker.protocol.names import Names
from durable_worker.transports.base import (
    DEATH_HEADER,
    DEATH_QUEUE_HEADER,
    DEFAULT_MAX_MESSAGE_BYTES,
    DELIVERY_LIMIT,
    DELIVERY_LIMIT_REASON,
    ERROR_HEADER,
    Delivery,
    Envelope,
    Told,
)
from durable_worker.transports.limits import check_message, check_names
from durable_worker.transports.topics import matches_topic


class _Queue:
    """Ready messages of one work queue, those given back first, and who takes them in turn."""

    def __init__(self, name: str, dead: "_Queue | None") -> None:
        self.name = name
        self._dead = dead
        self._ready: deque[_Message] = deque()
        self._returned: deque[_Message] = deque()
        self._unacked: set[_Message] = set()
        self._consumers: deque[_Consumer] = deque()
        self._is_pump_due = False
        self._is_abandoned = False

    @property
    def consumers(self) -> int:
        return len(self._consumers)

    @property
    def depth(self) -> int:
        return len(self._ready) + len(self._returned) + len(self._unacked)

    def put(self, envelope: Envelope) -> None:
        self._ready.append(_Message(self, envelope, 0))
        self._schedule()

    def add(self, consumer: "_Consumer") -> None:
        self._consumers.append(consumer)
        self._schedule()

    def remove(self, consumer: "_Consumer") -> None:
        if consumer in self._consumers:
            self._consumers.remove(consumer)

    def abandon(self) -> None:
        """Nobody will ever take from it: what it has, and gets back, goes to the dead queue."""
        self._is_abandoned = True
        while source := self._returned or self._ready:
            self._bury(source.popleft())

    def _bury(self, message: "_Message") -> None:
        if self._dead is not None:
            self._dead.put(message.envelope)

    def settle(self, message: "_Message") -> None:
        """The message is answered for: its consumer has room for another one."""
        self._unacked.discard(message)
        if self._ready or self._returned:
            self._schedule()

    def give_back(self, message: "_Message") -> None:
        count = message.delivery_count + 1
        if self._is_abandoned:
            self._bury(message)
        elif self._dead is not None and count > DELIVERY_LIMIT:
            self._dead.put(_dead_letter(message))
        else:
            self._returned.append(_Message(self, message.envelope, count))
        self.settle(message)

    def close(self) -> None:
        """No consumer is left, and what none has answered for is ready again, ahead of the rest."""
        self._consumers.clear()
        for message in sorted(self._unacked, key=lambda each: each.taken_as):
            message.abandon()
            self.give_back(message)

    def _schedule(self) -> None:
        if self._consumers and not self._is_pump_due:
            self._is_pump_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._is_pump_due = False
        source = self._returned or self._ready
        while source and (consumer := self._next_with_room()):
            message = source.popleft()
            self._unacked.add(message)
            consumer.deliver(message)
            source = self._returned or self._ready

    def _next_with_room(self) -> "_Consumer | None":
        consumers = self._consumers
        for _ in range(len(consumers)):
            consumer = consumers[0]
            consumers.rotate(-1)
            if consumer.room > 0:
                return consumer
        return None


def _dead_letter(message: "_Message") -> Envelope:
    reason = (
        f"queue {message.queue!r} delivered it {message.delivery_count + 1} times without success"
    )
    died = {
        ERROR_HEADER: reason,
        DEATH_HEADER: DELIVERY_LIMIT_REASON,
        DEATH_QUEUE_HEADER: message.queue,
    }
    return replace(message.envelope, headers={**message.envelope.headers, **died})


class _Consumer:
    """One subscription's place at one queue."""

    def __init__(self, handler: Callable[[Delivery], None], *, prefetch: int) -> None:
        self._handler = handler
        self._taken = 0
        self.room = prefetch

    def deliver(self, message: "_Message") -> None:
        self.room -= 1
        self._taken = message.taken_as = self._taken + 1
        message.consumer = self
        self._handler(message)


class _Message:
    """A `Delivery`, and before that what lies on the queue."""

    __slots__ = ("_home", "consumer", "delivery_count", "envelope", "taken_as")

    def __init__(self, home: _Queue, envelope: Envelope, delivery_count: int) -> None:
        self._home = home
        self.consumer: _Consumer | None = None
        self.envelope = envelope
        self.delivery_count = delivery_count
        self.taken_as = 0

    @property
    def queue(self) -> str:
        return self._home.name

    def abandon(self) -> bool:
        """End the hold; False if it has ended already."""
        consumer, self.consumer = self.consumer, None
        if consumer is None:
            return False
        consumer.room += 1
        return True

    async def ack(self) -> None:
        self.ack_now()

    def ack_now(self) -> None:
        if self.abandon():
            self._home.settle(self)

    async def release(self) -> None:
        if self.abandon():
            self._home.give_back(self)

    async def renew(self) -> None:
        """Nobody takes a message back for its age."""


class _Listener:
    """One subscription to a broadcast."""

    def __init__(self, handler: Callable[[Envelope], None], topic: str) -> None:
        self._handler = handler
        self._is_active = True
        self.topic = topic

    def deliver(self, envelope: Envelope) -> None:
        if self._is_active:
            self._handler(envelope)

    def close(self) -> None:
        self._is_active = False


class _Subscription:
    """Ends its consumers or listeners once."""

    def __init__(self, end: Callable[[], None]) -> None:
        self._end: Callable[[], None] | None = end

    async def stop(self) -> None:
        end, self._end = self._end, None
        if end is not None:
            end()


class MemoryTransport:
    """Queues and broadcasts of one process and one event loop.

    Workers, operators and clients of the process share one instance: it may be entered many times
    and closes with the last exit, which makes what nobody acked ready again. `names` tells which
    queue is the dead queue; `max_message_bytes` bounds the body of one message.
    """

    def __init__(
        self,
        *,
        names: Names | None = None,
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
    ) -> None:
        self._names = names or Names()
        self._dead = _Queue(self._names.dead, None)
        self._queues: dict[str, _Queue] = {}
        self._abandoned: list[_Queue] = []
        self._listeners: dict[str, list[_Listener]] = {}
        self._max_message_bytes = max_message_bytes
        self._users = 0

    async def __aenter__(self) -> Self:
        self._users += 1
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        self._users -= 1
        if self._users == 0:
            for queue in (*self._queues.values(), *self._abandoned):
                queue.close()
            self._abandoned.clear()
            for listener in [each for group in self._listeners.values() for each in group]:
                listener.close()
            self._listeners.clear()

    @property
    def is_durable(self) -> bool:
        return False

    def depth(self, queue: str) -> int:
        """How many messages the queue holds, delivered but unanswered ones included."""
        found = self._queues.get(queue)
        return 0 if found is None else found.depth

    async def wait_connected(self) -> None:
        self._check_open()

    async def declare(self, queues: Sequence[str]) -> None:
        self._check_open(*queues)
        for name in queues:
            self._declared(name)

    async def consumers(self, queue: str) -> int:
        self._check_open(queue)
        found = self._queues.get(queue)
        return 0 if found is None else found.consumers

    async def send(self, queue: str, envelope: Envelope) -> None:
        self.put(queue, envelope)

    def post(self, queue: str, envelope: Envelope, told: Told) -> bool:
        error: UnroutableError | None = None
        try:
            self.put(queue, envelope)
        except ConnectionLostError:
            return False
        except UnroutableError as found:
            error = found
        asyncio.get_running_loop().call_soon(told, error)
        return True

    def put(self, queue: str, envelope: Envelope) -> None:
        """`send`, which has nothing to wait for here."""
        self._check(envelope, queue)
        found = self._queues.get(queue)
        if found is None:
            raise UnroutableError(queue)
        found.put(envelope)

    async def broadcast(self, exchange: str, envelope: Envelope, *, topic: str = "") -> None:
        self._check(envelope, exchange, topic=topic)
        listeners = self._listeners.get(exchange)
        if not listeners:
            return
        loop = asyncio.get_running_loop()
        for listener in listeners:
            if matches_topic(listener.topic, topic):
                loop.call_soon(listener.deliver, envelope)

    async def consume(
        self, queues: Sequence[str], handler: Callable[[Delivery], None], *, prefetch: int
    ) -> _Subscription:
        self._check_open(*queues)
        places = [(self._declared(name), _Consumer(handler, prefetch=prefetch)) for name in queues]
        for queue, consumer in places:
            queue.add(consumer)

        def end() -> None:
            for queue, consumer in places:
                queue.remove(consumer)
                if self._names.is_of_one_worker(queue.name):
                    self._queues.pop(queue.name, None)
                    queue.abandon()
                    if queue.depth:
                        self._abandoned.append(queue)

        return _Subscription(end)

    async def listen(
        self, exchange: str, handler: Callable[[Envelope], None], *, topic: str = "#"
    ) -> _Subscription:
        self._check_open(exchange, topic)
        listener = _Listener(handler, topic)
        listeners = self._listeners.setdefault(exchange, [])
        listeners.append(listener)

        def end() -> None:
            listener.close()
            if listener in listeners:
                listeners.remove(listener)

        return _Subscription(end)

    def _declared(self, name: str) -> _Queue:
        self._queues.setdefault(self._dead.name, self._dead)
        if name not in self._queues:
            self._queues[name] = _Queue(name, self._dead)
        return self._queues[name]

    def _check(self, envelope: Envelope, target: str, *, topic: str = "") -> None:
        if self._users == 0:
            self._check_open()
        check_message(target, envelope, topic=topic, max_bytes=self._max_message_bytes)

    def _check_open(self, *names: str) -> None:
        if self._users == 0:
            raise ConnectionLostError("the memory transport is closed; enter it before using it")
        check_names(*names)
