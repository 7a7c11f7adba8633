"""Keeps messages that are worked on for long from being taken back.

A broker gives a message that is not answered in time to somebody else. So a process that needs
longer publishes a copy to a queue that only it consumes from, takes the copy, and acknowledges what
it had before; again and again. If the process dies, the copies go to the queue they came from.
See protocol/README.md, "Long work".
"""

import asyncio
import uuid
from collections import OrderedDict
from datetime import timedelta
from itertools import count

from durable_worker.errors import ConnectionLostError, HeadersTooLargeError
from durable_worker.protocol.names import Names
from durable_worker.transports.rabbitmq.amqp.events import Message
from durable_worker.transports.rabbitmq.amqp.properties import write_properties
from durable_worker.transports.rabbitmq.consumer import Consumer
from durable_worker.transports.rabbitmq.copies import copied, mark_of, number_in
from durable_worker.transports.rabbitmq.delivery import Holdings, Place, RabbitDelivery
from durable_worker.transports.rabbitmq.inspection import Inspection
from durable_worker.transports.rabbitmq.lanes import Channel
from durable_worker.transports.rabbitmq.publisher import Publisher
from durable_worker.transports.rabbitmq.sources import Work
from durable_worker.transports.rabbitmq.states import StateListener
from durable_worker.transports.rabbitmq.supervisor import Roster
from durable_worker.transports.rabbitmq.topology import declare_held

HELD_FOR = timedelta(seconds=7)
"""Longer than a renewal apart, so that a connection that breaks may be mended: two seconds, at the
least. Nobody else gets the message before, also if its holder is dead."""

AT_ONCE = 32
"""How many copies are on their way at one time."""

LARGE_BYTES = 512 * 1024
"""Copies of larger messages are made one at a time, since each is in memory several times."""

MOST_PROPERTIES = 128_000
"""Bytes of properties with which a copy can be made and come back."""

REMEMBERED = 10_000
"""Answered messages of which a copy may still come."""

MOST_HELD = 65_535
"""What AMQP lets one consumer have unanswered."""


class HeldQueue:
    """The source of copies: each is another place for a message that this process works on."""

    prefetch = MOST_HELD

    def __init__(self, name: str, *, held_for: timedelta) -> None:
        self.name = name
        self.held_for = held_for
        self._numbers = count(1)
        self._open: dict[int, RabbitDelivery] = {}
        self._done: OrderedDict[int, Holdings | None] = OrderedDict()
        self._arrivals: dict[int, asyncio.Future[None]] = {}
        self._times_made = 0
        self._has_given_back = False

    @property
    def is_spent(self) -> bool:
        """Whether the queue exists, and nothing is in it nor on its way out of it to another one.

        A broker does not tell of what is on its way, so one whose consumer was ever lost is not.
        """
        return not self._open and self._times_made == 1 and not self._has_given_back

    def enter(self, delivery: RabbitDelivery) -> int:
        """The number by which the copies of a message are known."""
        if delivery.number is None:
            number = delivery.number = next(self._numbers)
            self._open[number] = delivery
            delivery.on_answered(lambda rejected_at: self._leave(number, rejected_at))
        return delivery.number

    def arrival(self, number: int) -> asyncio.Future[None]:
        """Done when the next copy is here, and what it replaces is acknowledged."""
        if number not in self._arrivals:
            self._arrivals[number] = asyncio.get_running_loop().create_future()
        return self._arrivals[number]

    def is_awaited(self, number: int) -> bool:
        return number in self._arrivals

    def expect_no_more(self, number: int) -> None:
        self._arrivals.pop(number, None)

    async def give_back_all(self) -> None:
        """Nobody will answer any more: others need not wait until that shows."""
        for delivery in [*self._open.values()]:
            await delivery.release()

    async def prepare(self, channel: Channel) -> str:
        await declare_held(channel, self.name, held_for=self.held_for)
        self._times_made += 1
        return self.name

    def receive(self, message: Message, holdings: Holdings) -> Work:
        holdings.take(message.tag)
        return self._take_over(message, Place(holdings, message.tag, is_held=True))

    async def _take_over(self, message: Message, place: Place) -> None:
        number = number_in(message.properties.headers or {}, self.name)
        delivery = None if number is None else self._open.get(number)
        if delivery is None:
            self._turn_away(place, number)
        else:
            await delivery.move(place)
        arrival = None if number is None else self._arrivals.get(number)
        if arrival is not None and not arrival.done():
            arrival.set_result(None)

    def _turn_away(self, place: Place, number: int | None) -> None:
        if number is not None and self._is_settled(number, place):
            place.ack()
        else:
            self._has_given_back = True
            place.release()

    def _is_settled(self, number: int, place: Place) -> bool:
        # What was rejected over a channel that is gone may have missed its rejection.
        return number in self._done and self._done[number] in (None, place.holdings)

    def _leave(self, number: int, rejected_at: Holdings | None) -> None:
        delivery = self._open.pop(number)
        self._has_given_back |= delivery.was_given_back
        self._done[number] = rejected_at
        if len(self._done) > REMEMBERED:
            self._done.popitem(last=False)


class Held:
    """The copies of one process. Nothing is declared before the first one is needed."""

    def __init__(
        self,
        names: Names,
        *,
        consuming: Roster,
        publishing: Roster,
        held_for: timedelta,
        period: timedelta,
        emit: StateListener,
    ) -> None:
        self._queue = HeldQueue(names.held(uuid.uuid4().hex[:16]), held_for=held_for)
        self._consuming = consuming
        self._publishing = publishing
        self._period = period
        self._emit = emit
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._large = asyncio.Semaphore(1)
        self._consumer: Consumer | None = None
        # A channel of its own: should the exchange be missing, only copies suffer from it.
        self._publisher = Publisher(ready=_at_once, on_unroutable=lambda _: None)

    async def renew(self, delivery: RabbitDelivery) -> None:
        """Raises `TransportError`s: it could not be done, and may be tried again."""
        consumer = self._begin()
        await consumer.attached()
        slots = self._large if len(delivery.envelope.body) > LARGE_BYTES else self._slots
        async with slots:
            if delivery.is_answered or not delivery.is_here:
                return
            if not consumer.is_consuming:
                raise ConnectionLostError(
                    f"queue {self._queue.name!r} is not consumed at present; a copy would be lost "
                    f"to another process"
                )
            number = self._queue.enter(delivery)
            if not self._queue.is_awaited(number):
                await self._copy(delivery, number)

    async def close(self, inspection: Inspection) -> None:
        """Give back what is unanswered, and remove the queue unless something may be left in it."""
        if self._consumer is None:
            return
        await self._publisher.drained()
        await self._queue.give_back_all()
        self._consuming.remove(self._consumer)
        self._consumer.ask_to_stop()
        await self._consumer.stopped()
        if self._queue.is_spent:
            await inspection.delete(self._queue.name)

    def _begin(self) -> Consumer:
        if self._consumer is None:
            self._consumer = Consumer(self._queue, period=self._period, emit=self._emit)
            self._consuming.add(self._consumer)
            self._publishing.add(self._publisher)
        return self._consumer

    async def _copy(self, delivery: RabbitDelivery, number: int) -> None:
        mark = mark_of(self._queue.name, number)
        copy = copied(delivery.properties, deliveries=delivery.delivery_count, mark=mark)
        properties = write_properties(copy)
        if (size := len(properties)) > MOST_PROPERTIES:
            # The broker adds to them, and would close the connection if they grew too large.
            raise HeadersTooLargeError(delivery.queue, size=size, limit=MOST_PROPERTIES)
        arrival = self._queue.arrival(number)
        try:
            await self._publisher.publish(
                delivery.queue, delivery.envelope.body, properties, exchange=self._queue.name
            )
            async with asyncio.timeout(self._queue.held_for.total_seconds()):
                await arrival
        except TimeoutError:
            raise ConnectionLostError(
                f"a copy did not come back from queue {self._queue.name!r}"
            ) from None
        finally:
            self._queue.expect_no_more(number)


async def _at_once() -> None:
    """There is nothing to wait for."""
