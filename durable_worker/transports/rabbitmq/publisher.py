"""Messages to work queues: persistent, mandatory, confirmed, many in flight at once."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from functools import partial

from durable_worker.errors import (
    ConnectionLostError,
    HeadersTooLargeError,
    PayloadTooLargeError,
    PublishRejectedError,
    TransportError,
    UnroutableError,
)
from durable_worker.transports.base import Told
from durable_worker.transports.rabbitmq.amqp.errors import (
    PRECONDITION_FAILED,
    AmqpError,
    ChannelClosedError,
    RejectedError,
    ReturnedError,
)
from durable_worker.transports.rabbitmq.lanes import Channel
from durable_worker.transports.rabbitmq.link import (
    Link,
    channel_of,
    pause,
    raise_if_cancelled,
    translation,
)

RETRY_SECONDS = 0.1

MOST_PROPERTIES = 131_052
"""Bytes that fit into one frame of the default size, as all properties of a message must."""

_BROKER_LIMIT = re.compile(r"message size (\d+) is larger than configured max size (\d+)")


class Publisher:
    """Publishes over one channel of the current link; waits while there is none.

    `ready` is awaited before a new link is used, so that the queues are back before the messages.
    """

    def __init__(
        self, *, ready: Callable[[], Awaitable[None]], on_unroutable: Callable[[str], None]
    ) -> None:
        self._ready = ready
        self._on_unroutable = on_unroutable
        self._channel: Channel | None = None
        self._changed = asyncio.Event()
        self._refusal: TransportError | None = None
        self._pending = 0
        self._idle = asyncio.Event()

    async def serve(self, link: Link) -> None:
        while True:
            await self._ready()
            try:
                async with channel_of(link, confirms=True) as channel:
                    raise_if_cancelled()
                    self._use(channel)
                    await channel.ended()
            except ConnectionLostError:
                await pause(RETRY_SECONDS)
            finally:
                self._use(None)

    def refuse(self, error: TransportError) -> None:
        """Nothing goes out any more; what waits for a connection fails with this error."""
        self._refusal = error
        self._changed.set()

    async def drained(self) -> None:
        """Wait until the broker has answered for everything that was published."""
        while self._pending:
            self._idle.clear()
            await self._idle.wait()

    async def publish(
        self, queue: str, body: bytes, properties: bytes, *, exchange: str = ""
    ) -> None:
        """Send what is no envelope of ours; over an exchange, `queue` is its routing key."""
        _check_size(properties, queue)
        channel = self._channel
        if channel is None or channel.is_closed or not channel.has_room:
            channel = await self._usable_channel()
        self._pending += 1
        try:
            await channel.publish(exchange, queue, properties, body)
        except (AmqpError, OSError) as error:
            raise self._told(error, queue, size=len(body)) from error
        finally:
            self._pending -= 1
            if not self._pending:
                self._idle.set()

    def post(self, queue: str, body: bytes, properties: bytes, told: Told) -> bool:
        """As `publish`, but what that returns or raises comes to `told`; False, and nothing was
        done, if it cannot go out at once."""
        _check_size(properties, queue)
        channel = self._channel
        if channel is None:
            return False
        answered = partial(self._answered, told, queue, len(body))
        if not channel.post("", queue, properties, body, answered):
            return False
        self._pending += 1
        return True

    def _answered(
        self, told: Told, queue: str, size: int, error: AmqpError | OSError | None
    ) -> None:
        self._pending -= 1
        if not self._pending:
            self._idle.set()
        if error is None:
            told(None)
        else:
            told(self._told(error, queue, size=size))

    async def _usable_channel(self) -> Channel:
        while True:
            if self._refusal is not None:
                raise self._refusal
            channel = self._channel
            if channel is None or channel.is_closed:
                self._changed.clear()
                await self._changed.wait()
            elif channel.has_room:
                return channel
            else:
                await channel.room()

    def _told(self, error: AmqpError | OSError, queue: str, *, size: int) -> TransportError:
        """What the broker says about one message."""
        match error:
            case ReturnedError():
                self._on_unroutable(queue)
                return UnroutableError(queue)
            case RejectedError():
                return PublishRejectedError(
                    f"the broker did not take a message for queue {queue!r}: the queue is full or "
                    f"has no leader at present. Send it again later."
                )
            case ChannelClosedError() if error.code == PRECONDITION_FAILED:
                # The broker closes the channel of all for a message too large of one.
                found = _BROKER_LIMIT.search(error.text)
                if found is not None and int(found[1]) == size:
                    return PayloadTooLargeError(
                        size=size, limit=int(found[2]), queue=queue, is_brokers=True
                    )
                return ConnectionLostError(f"the broker closed the channel: {error}")
            case _:
                return translation(error, "publish")

    def _use(self, channel: Channel | None) -> None:
        self._channel = channel
        self._changed.set()


def _check_size(properties: bytes, queue: str) -> None:
    if len(properties) > MOST_PROPERTIES:
        # The broker would close the connection, and everything on it would come twice.
        raise HeadersTooLargeError(queue, size=len(properties), limit=MOST_PROPERTIES)
