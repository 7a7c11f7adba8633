"""Messages taken from a work queue, and the channel they can be answered on."""

import asyncio
from collections.abc import Awaitable, Callable

from msgspec import Struct

from durable_worker.transports.rabbitmq.amqp.events import Message
from durable_worker.transports.rabbitmq.lanes import Channel
from durable_worker.transports.rabbitmq.messages import delivery_count_of, to_envelope
from durable_worker.transports.rabbitmq.window import Window

_UNKNOWN = -1
"""No turn has this number."""


class Holdings:
    """What was taken over one channel of one connection and is not answered yet.

    A delivery tag means something on its own channel only, so a delivery answers through the
    holdings it came from; once that channel is closed, an answer does nothing.
    """

    def __init__(self, channel: Channel, *, generation: int, window: Window | None = None) -> None:
        self._channel = channel
        self._window = window
        self._tags: dict[int, int | None] = {}
        self._settled = asyncio.Event()
        self._settled.set()
        self.generation = generation

    def take(self, tag: int) -> None:
        """A message came, to be answered by this tag."""
        if not self._tags:
            self._settled.clear()
        self._tags[tag] = None if self._window is None else self._window.took()

    async def settled(self) -> None:
        """Wait until nothing is left to answer."""
        await self._settled.wait()

    def close(self) -> None:
        """From now on answers do nothing: on a closing channel they would be an offence."""
        for tag in [*self._tags]:
            self._forget(tag)
        self._settled.set()

    def holds(self, tag: int) -> bool:
        """Whether an answer still has an effect."""
        return tag in self._tags

    def ack(self, tag: int) -> None:
        if self._forget(tag):
            self._channel.ack(tag)

    def release(self, tag: int, *, requeue: bool) -> None:
        if self._forget(tag):
            self._channel.nack(tag, requeue=requeue)

    def detach(self, tag: int) -> tuple[Window, int] | None:
        """The message is answered elsewhere from now on: where it still counts, and its turn."""
        turn = self._tags.get(tag)
        if self._window is None or turn is None:
            return None
        self._tags[tag] = None
        return self._window, turn

    def _forget(self, tag: int) -> bool:
        tags = self._tags
        turn = tags.pop(tag, _UNKNOWN)
        if turn == _UNKNOWN:
            return False
        if turn is not None and self._window is not None:
            self._window.left(turn)
        if not tags:
            self._settled.set()
        return True


class Place(Struct, frozen=True):
    """Where a message can be answered. `is_held`: in its holder's own queue, as a copy."""

    holdings: Holdings
    tag: int
    is_held: bool = False

    @property
    def is_answerable(self) -> bool:
        """Whether an answer still has an effect."""
        return self.holdings.holds(self.tag)

    def ack(self) -> None:
        self.holdings.ack(self.tag)

    def release(self) -> None:
        # Requeued, a copy would only come back; rejected, it goes to the queue it came from.
        self.holdings.release(self.tag, requeue=not self.is_held)


class RabbitDelivery:
    """One message from a work queue of RabbitMQ. `renew` moves it to another place."""

    number: int | None = None
    was_given_back = False
    _is_answered = False
    _is_held = False
    _moved_out_of: Window | None = None
    _on_answered: Callable[[Holdings | None], None] | None = None

    def __init__(
        self,
        holdings: Holdings,
        queue: str,
        message: Message,
        renew: "Callable[[RabbitDelivery], Awaitable[None]]",
    ) -> None:
        self._holdings = holdings
        self._tag = message.tag
        self._renew = renew
        self.queue = queue
        self.envelope = to_envelope(message)
        self.delivery_count = delivery_count_of(message)
        self.properties = message.properties
        holdings.take(message.tag)

    @property
    def generation(self) -> int:
        """Number of the connection that it came over."""
        return self._holdings.generation

    @property
    def is_answered(self) -> bool:
        return self._is_answered

    @property
    def is_here(self) -> bool:
        """Whether its connection stands, so that an answer has an effect."""
        return self._holdings.holds(self._tag)

    async def ack(self) -> None:
        self.ack_now()

    def ack_now(self) -> None:
        if not self._is_answered:
            self._is_answered = True
            if self._on_answered is not None:
                self._tell_answered(rejected_at=None)
            self._holdings.ack(self._tag)

    async def release(self) -> None:
        if not self._is_answered:
            self._is_answered = self.was_given_back = True
            if self._on_answered is not None:
                self._tell_answered(rejected_at=self._holdings if self._is_held else None)
            self._place.release()

    async def renew(self) -> None:
        if not self._is_answered:
            await self._renew(self)

    def on_answered(self, note: Callable[[Holdings | None], None]) -> None:
        """Tell once it is answered; if a copy was rejected for that, through which holdings."""
        self._on_answered = note

    async def move(self, place: Place) -> None:
        """It is answered at another place from now on, and no other message comes for it."""
        former = self._place
        self._holdings, self._tag, self._is_held = place.holdings, place.tag, place.is_held
        detached = None if former.is_held else former.holdings.detach(former.tag)
        if detached is not None:
            self._moved_out_of, turn = detached
            await self._moved_out_of.movable(turn)
        former.ack()

    @property
    def _place(self) -> Place:
        return Place(self._holdings, self._tag, self._is_held)

    def _tell_answered(self, *, rejected_at: Holdings | None) -> None:
        """Only what somebody has asked to be told of was ever moved."""
        if self._moved_out_of is not None:
            self._moved_out_of.ended()
        if self._on_answered is not None:
            self._on_answered(rejected_at)
