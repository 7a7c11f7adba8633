"""One channel of a connection: requests, consumers, and messages in both directions."""

import asyncio
from collections import deque
from collections.abc import Callable
from copy import copy
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Final, TypeVar, assert_never

from pamqp import commands
from pamqp.base import Frame

from durable_worker.transports.rabbitmq.amqp import events
from durable_worker.transports.rabbitmq.amqp.answers import Answers
from durable_worker.transports.rabbitmq.amqp.confirms import Confirms
from durable_worker.transports.rabbitmq.amqp.errors import (
    AmqpError,
    ChannelClosedError,
    GoneError,
    RejectedError,
    ReturnedError,
)
from durable_worker.transports.rabbitmq.amqp.frames import nack_frame
from durable_worker.transports.rabbitmq.amqp.machine import ChannelState
from durable_worker.transports.rabbitmq.lanes import Arguments, Handler, QueueState

if TYPE_CHECKING:
    from durable_worker.transports.rabbitmq.amqp.connection import AmqpConnection

CLOSE_SECONDS: Final = 2.0
"""How long the broker gets to agree to the end of a channel."""

F = TypeVar("F", bound=Frame)

Told = Callable[[AmqpError | None], None]


def _settle(waiting: "asyncio.Future[Any]", error: AmqpError | None) -> None:
    if waiting.done():
        return  # whoever waited was cancelled
    if error is None:
        waiting.set_result(None)
    else:
        waiting.set_exception(error)
        # Read once: nobody may be waiting.
        waiting.exception()


class _Consumer:
    __slots__ = ("handler", "is_acked")

    def __init__(self, handler: Handler, *, is_acked: bool) -> None:
        self.handler = handler
        self.is_acked = is_acked


class AmqpChannel:
    """Made by `AmqpConnection.channel`; what it offers is in `lanes.Channel`."""

    def __init__(self, connection: "AmqpConnection", number: int) -> None:
        self.connection = connection
        self.number = number
        self._machine = connection.machine
        self._loop = connection.loop
        self._answers = Answers(number)
        self._confirms: Confirms[Told] = Confirms()
        self._requests: deque[asyncio.Future[Frame]] = deque()
        self._consumers: dict[bytes, _Consumer] = {}
        self._running: set[str] = set()
        self._former = b""
        self._names = count(1)
        self._end: asyncio.Future[AmqpError | None] = self._loop.create_future()
        self._on_consumer_end: list[Callable[[], None]] = []
        self._is_flowing = True
        # The broker's end of a channel stands there before its event comes here.
        self._state = ChannelState()

    @property
    def is_closed(self) -> bool:
        return self._state.is_closing or self._end.done()

    async def ended(self) -> AmqpError | None:
        await asyncio.wait({self._end})
        return self._end.result()

    def on_end(self, callback: Callable[[], None]) -> None:
        self._end.add_done_callback(lambda _: callback())

    def on_consumer_end(self, callback: Callable[[], None]) -> None:
        self._on_consumer_end.append(callback)

    # Requests

    async def open(self, *, confirms: bool) -> None:
        try:
            self._state = self._machine.open_channel(self.number)
            await self._answer(commands.Channel.OpenOk)
            if confirms:
                await self._ask(commands.Confirm.Select(), commands.Confirm.SelectOk)
        except asyncio.CancelledError:
            self._begin_close()
            self.end(None)
            raise

    async def look_at_queue(self, queue: str) -> QueueState:
        declare = commands.Queue.Declare(queue=queue, passive=True)
        found = await self._ask(declare, commands.Queue.DeclareOk)
        return QueueState(waiting=found.message_count or 0, consumers=found.consumer_count or 0)

    async def declare_queue(self, queue: str, arguments: Arguments) -> None:
        declare = commands.Queue.Declare(queue=queue, durable=True, arguments={**arguments})
        await self._ask(declare, commands.Queue.DeclareOk)

    async def declare_own_queue(self, arguments: Arguments) -> str:
        declare = commands.Queue.Declare(exclusive=True, auto_delete=True, arguments={**arguments})
        return (await self._ask(declare, commands.Queue.DeclareOk)).queue or ""

    async def delete_queue(self, queue: str) -> None:
        await self._ask(commands.Queue.Delete(queue=queue), commands.Queue.DeleteOk)

    async def look_at_exchange(self, exchange: str, kind: str) -> None:
        declare = commands.Exchange.Declare(exchange=exchange, exchange_type=kind, passive=True)
        await self._ask(declare, commands.Exchange.DeclareOk)

    async def declare_exchange(self, exchange: str, kind: str, *, is_passing: bool = False) -> None:
        declare = commands.Exchange.Declare(
            exchange=exchange,
            exchange_type=kind,
            durable=not is_passing,
            auto_delete=is_passing,
        )
        await self._ask(declare, commands.Exchange.DeclareOk)

    async def bind(self, queue: str, exchange: str, routing_key: str) -> None:
        bind = commands.Queue.Bind(queue=queue, exchange=exchange, routing_key=routing_key)
        await self._ask(bind, commands.Queue.BindOk)

    async def limit(self, prefetch: int) -> None:
        await self._ask(commands.Basic.Qos(prefetch_count=prefetch), commands.Basic.QosOk)

    async def consume(self, queue: str, handler: Handler, *, is_acked: bool) -> str:
        name = f"{self.number}.{next(self._names)}"
        consume = commands.Basic.Consume(queue=queue, consumer_tag=name, no_ack=not is_acked)
        # Messages may follow the broker's answer at once.
        self._consumers[name.encode()] = _Consumer(handler, is_acked=is_acked)
        self._running.add(name)
        await self._ask(consume, commands.Basic.ConsumeOk)
        return name

    async def cancel(self, consumer: str) -> None:
        self._running.discard(consumer)
        await self._ask(commands.Basic.Cancel(consumer_tag=consumer), commands.Basic.CancelOk)
        # Late messages of this one may still come; of the one before they have.
        self._consumers.pop(self._former, None)
        self._former = consumer.encode()

    def consumes(self, consumer: str) -> bool:
        return consumer in self._running

    async def close(self) -> None:
        if self.is_closed:
            return
        self._begin_close()
        try:
            await asyncio.wait({self._end}, timeout=CLOSE_SECONDS)
        finally:
            self.end(None)

    # Messages

    def ack(self, tag: int) -> None:
        if self._state.is_closing or not self._answers.ack(tag):
            return
        self.connection.has_answers(self)

    def nack(self, tag: int, *, requeue: bool) -> None:
        if self._state.is_closing or not self._answers.nack(tag):
            return
        self._machine.out.append(nack_frame(self.number, tag, requeue=requeue))
        self.connection.flush_soon()

    @property
    def has_room(self) -> bool:
        return self._is_flowing and self.connection.has_room

    async def room(self) -> None:
        while not (self.has_room or self.is_closed):
            await self.connection.room_or_end()

    def publish(
        self, exchange: str, routing_key: str, properties: bytes, body: bytes
    ) -> "asyncio.Future[None]":
        confirm: asyncio.Future[None] = self._loop.create_future()
        if self._state.is_closing or self._end.done():
            confirm.set_exception(self._gone())
        else:
            self._publish(exchange, routing_key, properties, body, partial(_settle, confirm))
        return confirm

    def post(
        self, exchange: str, routing_key: str, properties: bytes, body: bytes, told: Told
    ) -> bool:
        if self._state.is_closing or self._end.done():
            return False
        if not (self._is_flowing and self.connection.has_room):
            return False
        self._publish(exchange, routing_key, properties, body, told)
        return True

    def broadcast(self, exchange: str, routing_key: str, properties: bytes, body: bytes) -> None:
        if self._state.is_closing or self._end.done():
            raise self._gone()
        self._machine.publish(self.number, exchange, routing_key, properties, body, mandatory=False)
        self.connection.wrote(len(body))

    def _publish(
        self, exchange: str, routing_key: str, properties: bytes, body: bytes, told: Told
    ) -> None:
        self._machine.publish(self.number, exchange, routing_key, properties, body, mandatory=True)
        self._confirms.published(told, exchange, routing_key, properties, body)
        self.connection.wrote(len(body))

    # For the connection

    def on_message(self, message: events.Message) -> None:
        consumer = self._consumers.get(message.consumer)
        if consumer is None:
            return  # it stays unanswered, and goes elsewhere with the channel
        if consumer.is_acked:
            self._answers.came(message.tag)
        consumer.handler(message)

    def on_event(self, event: "events.OfChannel") -> None:
        match event:
            case events.Confirmed():
                self._on_confirmed(event)
            case events.Answer():
                waiting = self._requests.popleft()
                if not waiting.done():
                    waiting.set_result(event.method)
            case events.Returned(exchange=exchange, routing_key=routing_key, body=body):
                message_id = (event.properties.message_id or "").encode()
                self._confirms.returned(exchange, routing_key, message_id, body)
            case events.ConsumerEnded():
                self._running.discard(event.consumer)
                for callback in self._on_consumer_end:
                    callback()
            case events.Flow():
                self._is_flowing = event.is_active
                self.connection.note_room()
            case events.ChannelClosed():
                self.end(ChannelClosedError(event.code, event.text))
            case events.ChannelEnded():
                self.end(None)
            case _:
                assert_never(event)

    def end(self, reason: AmqpError | None) -> None:
        """It is closed: fail whoever waits for something."""
        if self._end.done():
            return
        self._end.set_result(reason)
        self.connection.forget(self)
        for each in self._requests:
            _settle(each, self._gone())
        self._requests.clear()
        for told in self._confirms.given_up():
            self._tell(told, self._gone())

    def take_answers(self) -> list[bytes]:
        return [] if self._state.is_closing else self._answers.frames()

    # Inside

    def _on_confirmed(self, event: events.Confirmed) -> None:
        for told, is_returned in self._confirms.confirmed(event.tag, multiple=event.multiple):
            if is_returned:
                self._tell(told, ReturnedError())
            else:
                self._tell(told, None if event.is_taken else RejectedError())

    def _tell(self, told: Told, error: AmqpError | None) -> None:
        try:
            told(error)
        except Exception as defect:  # others wait for what came with it
            self._loop.call_exception_handler(
                {"message": "who waited for a confirm has raised", "exception": defect}
            )

    def _begin_close(self) -> None:
        self._machine.out += self.take_answers()
        self._machine.close_channel(self.number)
        self.connection.flush_soon()

    def _gone(self) -> AmqpError:
        reason = self._end.result() if self._end.done() else None
        return copy(reason) if reason else GoneError("the connection was closed")

    async def _ask(self, request: Frame, answer: type[F]) -> F:
        if self.is_closed:
            raise self._gone()
        self._machine.request(self.number, request)
        return await self._answer(answer)

    async def _answer(self, kind: type[F]) -> F:
        waiting: asyncio.Future[Any] = self._loop.create_future()
        self._requests.append(waiting)
        self.connection.flush_soon()
        answer = await waiting
        assert isinstance(answer, kind)
        return answer
