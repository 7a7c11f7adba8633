"""A consumer that is wanted: taken up on every connection, and whenever it has gone missing."""

import asyncio
from datetime import timedelta

from durable_worker.errors import BrokerRefusedError, ConnectionLostError, TransportError
from durable_worker.transports.rabbitmq.amqp.events import Message
from durable_worker.transports.rabbitmq.delivery import Holdings
from durable_worker.transports.rabbitmq.lanes import Channel
from durable_worker.transports.rabbitmq.link import (
    Link,
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
from durable_worker.transports.rabbitmq.topology import look_at
from durable_worker.transports.rabbitmq.vigil import Verdict, Vigil
from durable_worker.transports.rabbitmq.window import Window

FIRST_RETRY = timedelta(milliseconds=100)

LATE_SECONDS = 1.0
"""How long after a consumer has ended messages for it may still come."""


class Consumer:
    """Consumes one source over a channel of its own, on one link after the other.

    A watchdog looks every `period` whether the broker still knows the consumer, and whether it gets
    what waits: one that is alive but gets nothing is the failure that nobody notices. Another one
    then takes over on a channel of its own, and what was taken stays with the former channel.
    """

    def __init__(self, source: Source, *, period: timedelta, emit: StateListener) -> None:
        self._source = source
        self._period = period
        self._emit = emit
        self._attached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._stopped = asyncio.Event()
        self._wake = asyncio.Event()
        self._window = None if source.prefetch is None else Window(source.prefetch)
        self._vigil = Vigil()
        self._is_stopping = False
        self._is_consuming = False
        self._is_missed = False

    @property
    def is_consuming(self) -> bool:
        return self._is_consuming

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
        async with asyncio.TaskGroup() as former:
            while not self._is_stopping:
                try:
                    await self._consume(link, former)
                except BrokerRefusedError as error:
                    if not self._attached.done():
                        self.refuse(error)
                        return
                    reason = str(error)
                except ConnectionLostError as error:
                    reason = str(error)
                else:
                    continue
                await pause(delay.total_seconds())
                self._report_missed(reason)
                delay = self._period
            self._end_consuming()

    async def _consume(self, link: Link, former: asyncio.TaskGroup) -> None:
        """Return when told to stop, or when it has to start anew on another channel."""
        channel = await link.channel()
        holdings = Holdings(channel, generation=link.generation, window=self._window)
        is_left = False
        try:
            attachment = await self._attach(channel, holdings, former)
            await self._watch(attachment)
            await attachment.cancel()
            if not self._is_stopping:
                former.create_task(_leave(channel, holdings))
                is_left = True
                return
            self._end_consuming()
            await holdings.settled()
        finally:
            if not is_left:
                self._end_consuming()
                holdings.close()
                if self._window is not None:
                    self._window.end_turn()
                await channel.close()

    async def _attach(
        self, channel: Channel, holdings: Holdings, group: asyncio.TaskGroup
    ) -> "_Attachment":
        self._wake.clear()
        channel.on_consumer_end(self._wake.set)
        channel.on_end(self._wake.set)
        if self._window is not None:
            self._window.on_due(self._wake.set)
        queue = await self._source.prepare(channel)
        attachment = _Attachment(
            channel, queue, self._source, holdings, window=self._window, group=group
        )
        self._is_consuming = True
        await attachment.consume()
        if not self._attached.done():
            self._attached.set_result(None)
        self._report_restored()
        return attachment

    async def _watch(self, attachment: "_Attachment") -> None:
        """Return when told to stop, or when another consumer has to take over on a new channel.
        Raises `ConnectionLostError` when this one is gone, and what it held with it."""
        while not self._is_stopping:
            raise_if_cancelled()
            try:
                async with asyncio.timeout(self._period.total_seconds()):
                    await self._wake.wait()
            except TimeoutError:
                verdict = await attachment.look(self._vigil)
                if verdict in (Verdict.FORGOTTEN, Verdict.STARVED):
                    self._report_missed(verdict.value)
                if verdict is not Verdict.SOUND:
                    return
            self._wake.clear()
            attachment.check()
            if not self._is_stopping and self._window is not None and self._window.is_turn_due:
                await attachment.cancel()
                await attachment.consume()

    def _end_consuming(self) -> None:
        self._is_consuming = False
        if self._is_stopping:
            self._stopped.set()

    def _report_missed(self, reason: str) -> None:
        if self._attached.done() and not self._is_missed:
            self._is_missed = True
            self._emit(ConsumerLost(self._source.name, reason))

    def _report_restored(self) -> None:
        if self._is_missed:
            self._is_missed = False
            self._emit(ConsumerRestored(self._source.name))


class _Attachment:
    """The consumers of one channel: one at a time, or none while there is no room."""

    def __init__(
        self,
        channel: Channel,
        queue: str,
        source: Source,
        holdings: Holdings,
        *,
        window: Window | None,
        group: asyncio.TaskGroup,
    ) -> None:
        self._channel = channel
        self._queue = queue
        self._source = source
        self._holdings = holdings
        self._window = window
        self._group = group
        self._tag: str | None = None
        self._has_come = False

    async def consume(self) -> None:
        window = self._window
        if window is None:
            await self._start(is_acked=False)
        elif room := window.room:
            with translated("limit the prefetch of queue", entity=self._source.name):
                await self._channel.limit(room)
            window.granted(room)
            await self._start(is_acked=True)

    async def cancel(self) -> None:
        """What was taken can still be answered on the channel."""
        if self._tag is not None:
            with translated("stop consuming", entity=self._source.name):
                await self._channel.cancel(self._tag)
            self._tag = None
        if self._window is not None:
            self._window.end_turn()

    async def look(self, vigil: Vigil) -> Verdict:
        """Raises `ConnectionLostError` if the queue is gone, or had this consumer only."""
        if self._tag is None:
            return Verdict.SOUND
        queue = await look_at(self._channel, self._queue)
        if self._window is None:
            if queue.consumers == 0:
                raise ConnectionLostError(Verdict.FORGOTTEN.value)
            return Verdict.SOUND
        has_come, self._has_come = self._has_come, False
        return vigil.judge(queue, has_come=has_come, has_room=self._window.has_credit)

    def check(self) -> None:
        """Raises `ConnectionLostError` if the broker has ended the channel or the consumer."""
        if self._channel.is_closed:
            raise ConnectionLostError("the broker closed the channel")
        if self._tag is not None and not self._channel.consumes(self._tag):
            raise ConnectionLostError("the broker ended the consumer; was the queue deleted?")

    async def _start(self, *, is_acked: bool) -> None:
        receive, holdings = self._source.receive, self._holdings

        def hand_on(message: Message) -> None:
            self._has_come = True
            work = receive(message, holdings)
            if work is not None:
                self._group.create_task(work)

        with translated("consume", entity=self._source.name):
            self._tag = await self._channel.consume(self._queue, hand_on, is_acked=is_acked)


async def _leave(channel: Channel, holdings: Holdings) -> None:
    """Close a channel that is not consumed any more, once all that came over it is answered."""
    try:
        await asyncio.sleep(LATE_SECONDS)
        await holdings.settled()
    finally:
        holdings.close()
        await channel.close()
