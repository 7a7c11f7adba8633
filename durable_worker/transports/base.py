"""What the worker and the operator need from a broker."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from msgspec import Struct

from durable_worker.errors import TransportError
from durable_worker.protocol.base import PROTOCOL_VERSION

DEFAULT_MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""RabbitMQ's own default limit."""

DELIVERY_LIMIT = 10
"""How often a work queue delivers a message again before it goes to the dead queue."""

ERROR_HEADER = "durable-error"
"""Why a message lies on the dead queue, one sentence."""

DEATH_HEADER = "x-first-death-reason"
"""Why the broker itself moved a message to the dead queue."""

ERROR_QUEUE_HEADER = "durable-error-queue"
"""The queue from which a peer moved a message to the dead queue."""

DEATH_QUEUE_HEADER = "x-first-death-queue"
"""The queue from which the broker itself moved it."""

DELIVERY_LIMIT_REASON = "delivery_limit"

HELD_HEADER = "durable-held"
"""On a message that somebody has worked on for long: where, and as which of its messages."""

RESENT_HEADER = "durable-resent"
"""On a task that an operator may have sent before: how often it was given up and sent again."""


class Envelope(Struct, frozen=True):
    """A message as the broker carries it: the body is the DTO and nothing else.

    `protocol` is the major version of the header `durable-protocol` (None: a peer that states
    none), `headers` are all other text headers. `expires` concerns broadcasts only: whoever has not
    read the message by then never sees it.
    """

    type: str | None
    body: bytes
    message_id: str | None = None
    protocol: int | None = PROTOCOL_VERSION
    headers: dict[str, str] = {}
    expires: timedelta | None = None


class Delivery(Protocol):
    """One message taken from a work queue. Exactly one of `ack` and `release` ends it.

    Both are harmless on a delivery whose connection is gone: the broker has taken it back already.
    The broker also takes back what is not answered for long; `renew` starts that time anew.
    """

    @property
    def queue(self) -> str: ...
    @property
    def envelope(self) -> Envelope: ...
    @property
    def delivery_count(self) -> int:
        """How often the broker has delivered this message before (0: the first time)."""
        ...

    async def ack(self) -> None: ...
    def ack_now(self) -> None:
        """`ack`, for who cannot wait."""
        ...

    async def release(self) -> None:
        """Put the message back to its queue.

        The broker counts this against its delivery limit, unless the delivery was renewed.
        """
        ...

    async def renew(self) -> None:
        """Keep it: the broker's time limit for an unanswered message starts again.

        May take its time, be cancelled, and run beside `ack` and `release`. Harmless on a delivery
        that is answered or whose connection is gone. Raises `TransportError`s if it could not be
        done; the delivery is then as it was.
        """
        ...


class Subscription(Protocol):
    """A running consumer (work queues or broadcasts); survives reconnects."""

    async def stop(self) -> None:
        """Take nothing more. Deliveries already handed out can still be acked or released."""
        ...


Told = Callable[[TransportError | None], None]
"""Is told once that a message was taken, or why not. Called on the event loop; must not raise."""


@runtime_checkable
class PromptTransport(Protocol):
    """A transport whose answer nobody has to wait for."""

    def post(self, queue: str, envelope: Envelope, told: Told) -> bool:
        """As `Transport.send`, but what that returns or raises comes to `told`, later.

        False, and nothing has happened, if the message cannot go out at once. Raises
        `PayloadTooLargeError` and `UnsendableError`.
        """
        ...


class Transport(Protocol):
    """A broker connection under supervision; use it as an async context manager.

    Entering returns once it runs, connected or not: while the broker is away it retries with
    jittered backoff, and `send` waits. Handlers are plain functions, called on the event loop; they
    must not block and must not raise.
    """

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...

    @property
    def is_durable(self) -> bool:
        """Whether a message that was sent survives the death of every process of ours."""
        ...

    async def send(self, queue: str, envelope: Envelope) -> None:
        """Publish to a work queue; returns when the broker has taken responsibility for it.

        Raises `UnroutableError`, `PublishRejectedError`, `PayloadTooLargeError`,
        `UnsendableError` (a name, an id or a type of more than 255 bytes), and
        `ConnectionLostError` if the connection went away before the confirm (it may have arrived).
        """
        ...

    async def broadcast(self, exchange: str, envelope: Envelope, *, topic: str = "") -> None:
        """Publish to everybody who listens now. At most once: lost while the broker is away.

        Raises `PayloadTooLargeError` and `UnsendableError`.
        """
        ...

    async def declare(self, queues: Sequence[str]) -> None:
        """Make sure that these work queues exist, now and after every reconnect.

        Raises `UnsendableError` for a name of more than 255 bytes, as do `consume` and `listen`.
        """
        ...

    async def consume(
        self, queues: Sequence[str], handler: Callable[[Delivery], None], *, prefetch: int
    ) -> Subscription:
        """Take messages from work queues (declared as needed), at most `prefetch` unacked each."""
        ...

    async def listen(
        self, exchange: str, handler: Callable[[Envelope], None], *, topic: str = "#"
    ) -> Subscription:
        """Receive broadcasts that are sent from now on."""
        ...

    async def consumers(self, queue: str) -> int:
        """How many consume from a work queue now, in any process; 0 if there is no such queue.

        Raises `ConnectionLostError` while the broker is away, `BrokerRefusedError` if it may not
        look.
        """
        ...

    async def wait_connected(self) -> None:
        """Return when connected. Raises `BrokerRefusedError` if the broker refuses this client."""
        ...
