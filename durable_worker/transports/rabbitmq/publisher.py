"""Messages to work queues: persistent, mandatory, confirmed, many in flight at once."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager

from aiormq import spec
from aiormq.channel import Channel
from aiormq.exceptions import ChannelPreconditionFailed, DeliveryError, PublishError

from durable_worker.errors import (
    ConnectionLostError,
    PayloadTooLargeError,
    PublishRejectedError,
    TransportError,
    UnroutableError,
)
from durable_worker.transports.base import Envelope
from durable_worker.transports.rabbitmq.link import (
    Link,
    channel_of,
    ended,
    pause,
    raise_if_cancelled,
    translated,
)
from durable_worker.transports.rabbitmq.messages import to_properties

RETRY_SECONDS = 0.1
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
        self._in_flight: dict[str, asyncio.Future[None]] = {}
        self._pending = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def serve(self, link: Link) -> None:
        while True:
            await self._ready()
            try:
                async with channel_of(link, confirms=True) as channel:
                    raise_if_cancelled()
                    self._use(channel)
                    await ended(channel)
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
        await self._idle.wait()

    async def send(self, queue: str, envelope: Envelope) -> None:
        await self.post(queue, envelope.body, to_properties(envelope, persistent=True))

    async def post(
        self, queue: str, body: bytes, properties: spec.Basic.Properties, *, exchange: str = ""
    ) -> None:
        """Send what is no envelope of ours; over an exchange, `queue` is its routing key."""
        channel = await self._open_channel()
        if properties.message_id is None:
            await self._publish(channel, queue, body, properties, exchange)
            return
        # The library finds the publish that a returned message belongs to by message id alone, so
        # one id is never in flight twice.
        while (earlier := self._in_flight.get(properties.message_id)) is not None:
            await asyncio.wait({earlier})
            channel = await self._open_channel()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._in_flight[properties.message_id] = done
        try:
            await self._publish(channel, queue, body, properties, exchange)
        finally:
            del self._in_flight[properties.message_id]
            done.set_result(None)

    async def _open_channel(self) -> Channel:
        while True:
            if self._refusal is not None:
                raise self._refusal
            if self._channel is not None and not self._channel.is_closed:
                return self._channel
            self._changed.clear()
            await self._changed.wait()

    async def _publish(
        self,
        channel: Channel,
        queue: str,
        body: bytes,
        properties: spec.Basic.Properties,
        exchange: str,
    ) -> None:
        self._pending += 1
        self._idle.clear()
        try:
            with translated("publish"), self._answers(queue, size=len(body)):
                await channel.basic_publish(
                    body,
                    exchange=exchange,
                    routing_key=queue,
                    properties=properties,
                    mandatory=True,
                    wait=False,
                )
        finally:
            self._pending -= 1
            if self._pending == 0:
                self._idle.set()

    @contextmanager
    def _answers(self, queue: str, *, size: int) -> Generator[None]:
        """What the broker says about one message."""
        try:
            yield
        except PublishError:
            self._on_unroutable(queue)
            raise UnroutableError(queue) from None
        except DeliveryError:
            raise PublishRejectedError(
                f"the broker did not take a message for queue {queue!r}: the queue is full or has "
                f"no leader at present. Send it again later."
            ) from None
        except ChannelPreconditionFailed as error:
            # The broker closes the channel of all for a message too large of one.
            found = _BROKER_LIMIT.search(str(error))
            if found is not None and int(found[1]) == size:
                raise PayloadTooLargeError(
                    size=size, limit=int(found[2]), queue=queue, is_brokers=True
                ) from None
            raise ConnectionLostError(f"the broker closed the channel: {error}") from error

    def _use(self, channel: Channel | None) -> None:
        self._channel = channel
        self._changed.set()
