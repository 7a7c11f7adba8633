"""A worker or an operator in a process of its own that may die between any two broker operations.

python -m tests.integration.kills.processes worker|operator
"""

import os
import sys
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import anyio

from durable_worker.errors import TransportError
from durable_worker.operator.service import OperatorService
from durable_worker.protocol.codec import MessageType
from durable_worker.protocol.names import Names
from durable_worker.stores.opening import store_at
from durable_worker.transports.base import Delivery, Envelope, Subscription, Told
from durable_worker.transports.rabbitmq import RabbitTransport
from durable_worker.worker.options import WorkerOptions
from durable_worker.worker.service import WorkerService
from tests.integration.kills import app


class MortalDelivery:
    """Dies instead of acknowledging: what it answered is with the broker, the task comes back."""

    def __init__(self, inner: Delivery) -> None:
        self._inner = inner

    @property
    def queue(self) -> str:
        return self._inner.queue

    @property
    def envelope(self) -> Envelope:
        return self._inner.envelope

    @property
    def delivery_count(self) -> int:
        return self._inner.delivery_count

    async def ack(self) -> None:
        app.die_here("before-ack")
        await self._inner.ack()

    def ack_now(self) -> None:
        app.die_here("before-ack")
        self._inner.ack_now()

    async def release(self) -> None:
        await self._inner.release()

    async def renew(self) -> None:
        await self._inner.renew()


class MortalTransport:
    """A RabbitTransport whose process may die before it sends and after the confirm."""

    is_durable = True

    def __init__(self, url: str, names: Names) -> None:
        self._inner = RabbitTransport(url, names=names)

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._inner.__aexit__(kind, error, trace)

    async def send(self, queue: str, envelope: Envelope) -> None:
        app.die_here("before-send")
        await self._inner.send(queue, envelope)
        self._note_confirmed(envelope)

    def post(self, queue: str, envelope: Envelope, told: Told) -> bool:
        def tell(error: TransportError | None) -> None:
            if error is None:
                self._note_confirmed(envelope)
            told(error)

        app.die_here("before-send")
        return self._inner.post(queue, envelope, tell)

    def _note_confirmed(self, envelope: Envelope) -> None:
        # A task has the same message id as its result.
        if envelope.type == MessageType.STEP_RESULT:
            app.journal("confirmed", envelope.message_id or "")
        app.die_here("after-send")

    async def consume(
        self, queues: Sequence[str], handler: Callable[[Delivery], None], *, prefetch: int
    ) -> Subscription:
        return await self._inner.consume(
            queues, lambda delivery: handler(MortalDelivery(delivery)), prefetch=prefetch
        )

    async def broadcast(self, exchange: str, envelope: Envelope, *, topic: str = "") -> None:
        await self._inner.broadcast(exchange, envelope, topic=topic)

    async def declare(self, queues: Sequence[str]) -> None:
        await self._inner.declare(queues)

    async def consumers(self, queue: str) -> int:
        return await self._inner.consumers(queue)

    async def listen(
        self, exchange: str, handler: Callable[[Envelope], None], *, topic: str = "#"
    ) -> Subscription:
        return await self._inner.listen(exchange, handler, topic=topic)

    async def wait_connected(self) -> None:
        await self._inner.wait_connected()


async def main(role: str) -> None:
    names = Names(prefix=os.environ["KILL_PREFIX"])
    async with MortalTransport(os.environ["KILL_BROKER"], names) as transport:
        if role == "worker":
            options = WorkerOptions(concurrency=4)
            await WorkerService(app.worker, transport, names=names, options=options).serve()
        else:
            async with store_at(os.environ["KILL_DATABASE"]) as store:
                await OperatorService(store, transport, names=names).serve()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
