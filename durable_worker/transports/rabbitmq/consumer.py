"""A consumer that is wanted: taken up on every connection, and whenever it has gone missing."""

import asyncio
from datetime import timedelta

from aiormq.abc import DeliveredMessage
from aiormq.channel import Channel

from durable_worker.errors import BrokerRefusedError, ConnectionLostError, TransportError
from durable_worker.transports.rabbitmq.delivery import Holdings
from durable_worker.transports.rabbitmq.link import (
    Link,
    call_at_end,
    close_channel,
    pause,
    raise_if_cancelled,
    translated,
)
from durable_worker.transports.rabbitmq.sources import Source
from durable_worker.transports.rabbitmq.states import (
    ConsumerLost,
    ConsumerRestored,
    StateListener,
)
from durable_worker.transports.rabbitmq.topology import consumer_count

FIRST_RETRY = timedelta(milliseconds=100)


class Consumer:
    """Consumes one source over a channel of its own, on one link after the other.

    A watchdog looks every `period` whether the broker still knows the consumer: one that is alive
    but gets nothing is the failure that nobody notices.
    """

    def __init__(self, source: Source, *, period: timedelta, emit: StateListener) -> None:
        self._source = source
        self._period = period
        self._emit = emit
        self._attached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stopped = asyncio.Event()
        self._wake = asyncio.Event()
        self._is_stopping = False
        self._is_consuming = False
        self._is_missed = False

    async def attached(self) -> None:
        """Wait for the first time that it consumes. Raises `BrokerRefusedError`."""
        await asyncio.shield(self._attached)

    def refuse(self, error: TransportError) -> None:
        """It will never consume: tell whoever waits for it."""
        self._is_stopping = True
        if not self._attached.done():
            self._attached.set_exception(error)
            # Read once: the waiter may have been cancelled meanwhile.
            self._attached.exception()

    def ask_to_stop(self) -> None:
        """Take nothing more; its channel stays until what was taken is answered."""
        self._is_stopping = True
        self._wake.set()

    async def stopped(self) -> None:
        """Wait until no further message comes."""
        if self._is_consuming:
            await self._stopped.wait()

    async def serve(self, link: Link) -> None:
        """Consume on this link until stopped or refused; ends by cancellation if the link does."""
        delay = FIRST_RETRY
        while not self._is_stopping:
            try:
                await self._consume(link)
            except BrokerRefusedError as error:
                if not self._attached.done():
                    self.refuse(error)
                    return
                reason = str(error)
            except ConnectionLostError as error:
                reason = str(error)
            else:
                return
            await pause(delay.total_seconds())
            self._report_missed(reason)
            delay = self._period

    async def _consume(self, link: Link) -> None:
        channel = await link.channel()
        holdings = Holdings(channel, generation=link.generation)
        try:
            queue, tag = await self._attach(channel, holdings)
            await self._watch(channel, queue, tag)
            with translated("stop consuming", entity=self._source.name):
                await channel.basic_cancel(tag)
            self._end_consuming()
            await holdings.settled()
        finally:
            self._end_consuming()
            holdings.close()
            await close_channel(channel)

    async def _attach(self, channel: Channel, holdings: Holdings) -> tuple[str, str]:
        async def receive(message: DeliveredMessage) -> None:
            self._source.receive(message, holdings)

        self._wake.clear()
        channel.on_consumer_cancel_callbacks.add(lambda _: self._wake.set())
        call_at_end(channel, self._wake.set)
        queue = await self._source.prepare(channel)
        self._is_consuming = True
        with translated("consume", entity=self._source.name):
            consuming = await channel.basic_consume(
                queue, receive, no_ack=not self._source.is_acked
            )
        if not self._attached.done():
            self._attached.set_result(None)
        if self._is_missed:
            self._is_missed = False
            self._emit(ConsumerRestored(self._source.name))
        return queue, str(consuming.consumer_tag)

    async def _watch(self, channel: Channel, queue: str, tag: str) -> None:
        """Return when told to stop. Raises `ConnectionLostError` when the consumer is gone."""
        while not self._is_stopping:
            raise_if_cancelled()
            try:
                async with asyncio.timeout(self._period.total_seconds()):
                    await self._wake.wait()
            except TimeoutError:
                if await consumer_count(channel, queue) == 0:
                    raise ConnectionLostError("the broker has forgotten the consumer") from None
            self._wake.clear()
            if channel.is_closed:
                raise ConnectionLostError("the broker closed the channel")
            if tag not in channel.consumers:
                raise ConnectionLostError("the broker ended the consumer; was the queue deleted?")

    def _end_consuming(self) -> None:
        self._is_consuming = False
        if self._is_stopping:
            self._stopped.set()

    def _report_missed(self, reason: str) -> None:
        if self._attached.done() and not self._is_missed:
            self._is_missed = True
            self._emit(ConsumerLost(self._source.name, reason))
