"""A peer that speaks AMQP by hand: it may say what no worker of ours would say."""

import json
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import aio_pika
import anyio
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractIncomingMessage

from durable_worker.protocol.names import Names

QUORUM: dict[str, Any] = {"x-queue-type": "quorum"}


def work_queue(names: Names) -> dict[str, Any]:
    """The arguments of a work queue (protocol/README.md)."""
    return {
        **QUORUM,
        "x-delivery-limit": 10,
        "x-overflow": "reject-publish",
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": names.dead,
        "x-dead-letter-strategy": "at-least-once",
    }


class Peer:
    def __init__(self, url: str, names: Names) -> None:
        self._url = url
        self._names = names
        self._connection: AbstractConnection
        self._channel: AbstractChannel

    async def __aenter__(self) -> Self:
        self._connection = await aio_pika.connect(self._url, timeout=10)
        self._channel = await self._connection.channel()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._connection.close()

    async def announce(
        self,
        instance_id: str,
        groups: Sequence[str],
        *,
        capabilities: Sequence[str] = (),
        protocol: Mapping[str, object] | None = None,
    ) -> None:
        """Say once that a worker is there, and what it is."""
        now = time.time_ns() // 1_000_000
        descriptor = {
            "instanceId": instance_id,
            "runtime": "python",
            "sdk": {"name": "peer", "version": "9.9.9"},
            "protocol": protocol or {"version": 1, "range": [1, 1]},
            "capabilities": list(capabilities),
            "workflows": [],
            "steps": list(groups),
            "startedAt": now,
        }
        beat = {"instanceId": instance_id, "groups": list(groups), "ts": now, "lifecycle": "up"}
        announcement = {"groups": list(groups), "descriptor": descriptor}
        exchange = await self._channel.declare_exchange(
            self._names.workers, aio_pika.ExchangeType.FANOUT, durable=True
        )
        for kind, body in (("worker-descriptor", announcement), ("worker-beat", beat)):
            await exchange.publish(_message(kind, body), routing_key="")

    async def send(
        self,
        queue: str,
        kind: str,
        body: object,
        *,
        message_id: str = "x",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`body`: bytes as they are, everything else as JSON."""
        await self._declare(queue)
        message = _message(kind, body, message_id=message_id)
        message.headers.update(headers or {})
        await self._channel.default_exchange.publish(message, routing_key=queue)

    async def take(self, queue: str, *, seconds: float = 20) -> AbstractIncomingMessage:
        """Take the next message from a queue; it is acknowledged."""
        found = await self._declare(queue)
        with anyio.fail_after(seconds):
            while (message := await found.get(fail=False)) is None:  # noqa: ASYNC110
                await anyio.sleep(0.05)
        await message.ack()
        return message

    async def _declare(self, queue: str) -> aio_pika.abc.AbstractQueue:
        arguments: dict[str, Any] = QUORUM if queue == self._names.dead else work_queue(self._names)
        return await self._channel.declare_queue(queue, durable=True, arguments=arguments)


def _message(kind: str, body: object, *, message_id: str | None = None) -> aio_pika.Message:
    return aio_pika.Message(
        body if isinstance(body, bytes) else json.dumps(body).encode(),
        content_type="application/json",
        type=kind,
        headers={"durable-protocol": 1},
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        message_id=message_id,
    )
