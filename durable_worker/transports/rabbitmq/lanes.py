"""What the transport needs of an AMQP client, of which there are two."""

from collections.abc import Awaitable, Callable, Mapping
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from durable_worker.transports.rabbitmq.amqp.errors import AmqpError
from durable_worker.transports.rabbitmq.amqp.events import Message

Arguments = Mapping[str, str | int]
Handler = Callable[[Message], None]
"""Called on the event loop with each message; must neither block nor raise."""


class Lane(StrEnum):
    """Which client carries everything between the transport and the broker.

    `FAST` is our own. `AIO_PIKA` is the client that aio-pika stands on, and does all that ours does
    at many times its cost: for whoever has to rule out that a problem is one of ours.

    Under an event loop other than asyncio's own, such as uvloop, either works, but no thread sends
    heartbeats: code that blocks the loop for long then costs the connections.
    """

    FAST = "fast"
    AIO_PIKA = "aio-pika"


class QueueState(Struct, frozen=True):
    """What the broker sees: messages that nobody has taken, and consumers."""

    waiting: int
    consumers: int


class Channel(Protocol):
    """Everything that is asked for raises `AmqpError`s; a request may be cancelled."""

    @property
    def connection(self) -> "Connection": ...
    @property
    def is_closed(self) -> bool: ...
    async def ended(self) -> AmqpError | None:
        """Wait until it is closed, by whomever; the reason if there is one."""
        ...

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call once when it is closed, by whomever."""
        ...

    def on_consumer_end(self, callback: Callable[[], None]) -> None:
        """Call whenever the broker has ended a consumer."""
        ...

    async def look_at_queue(self, queue: str) -> QueueState: ...
    async def declare_queue(self, queue: str, arguments: Arguments) -> None: ...
    async def declare_own_queue(self, arguments: Arguments) -> str:
        """A queue of this connection alone, which is gone with its last consumer; its name."""
        ...

    async def delete_queue(self, queue: str) -> None: ...
    async def look_at_exchange(self, exchange: str, kind: str) -> None: ...
    async def declare_exchange(self, exchange: str, kind: str, *, is_passing: bool = False) -> None:
        """`is_passing`: it is gone with the last queue that is bound to it."""
        ...

    async def bind(self, queue: str, exchange: str, routing_key: str) -> None: ...
    async def limit(self, prefetch: int) -> None:
        """For consumers that start from now on."""
        ...

    async def consume(self, queue: str, handler: Handler, *, is_acked: bool) -> str:
        """The consumer's name on this channel."""
        ...

    async def cancel(self, consumer: str) -> None:
        """What was on its way when it ended may still come to its handler."""
        ...

    def consumes(self, consumer: str) -> bool:
        """Whether it is neither cancelled nor ended."""
        ...

    def ack(self, tag: int) -> None:
        """Goes out with all that is written in this round of the event loop."""
        ...

    def nack(self, tag: int, *, requeue: bool) -> None: ...
    @property
    def has_room(self) -> bool:
        """Whether the broker takes what is published as fast as it comes."""
        ...

    async def room(self) -> None:
        """Wait until there is some, or the channel is closed."""
        ...

    def publish(
        self, exchange: str, routing_key: str, properties: bytes, body: bytes
    ) -> Awaitable[None]:
        """A mandatory message, on a channel with confirms; done when the broker has taken it.

        `properties` as `write_properties` makes them. Raises `ReturnedError`, `RejectedError`.
        """
        ...

    def post(
        self,
        exchange: str,
        routing_key: str,
        properties: bytes,
        body: bytes,
        told: Callable[[AmqpError | OSError | None], None],
    ) -> bool:
        """As `publish`, but what that returns or raises comes to `told`, later. False, and nothing
        was done, if it is closed or has no room."""
        ...

    def broadcast(self, exchange: str, routing_key: str, properties: bytes, body: bytes) -> None:
        """On a channel without confirms."""
        ...

    async def close(self) -> None:
        """After all that was written to it, within a bounded time. Raises nothing."""
        ...


class Connection(Protocol):
    is_limited: bool
    """Whether the broker has refused to create something over it."""

    async def channel(self, *, confirms: bool = False) -> Channel: ...
    @property
    def is_closed(self) -> bool: ...
    async def ended(self) -> BaseException | None:
        """Wait until it is closed, by whomever; the reason if there is one."""
        ...

    @property
    def is_silent(self) -> bool:
        """Whether nothing has come from the broker for so long that it must be taken for lost."""
        ...

    async def is_blocked(self) -> bool:
        """Whether the broker has stopped reading from it."""
        ...

    async def unblocked(self) -> None: ...
    async def close(self) -> None:
        """Say goodbye within a bounded time. Raises nothing."""
        ...
