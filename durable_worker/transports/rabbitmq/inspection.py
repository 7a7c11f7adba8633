"""Looks at queues from outside, over the connection that a blocked broker still answers on."""

from durable_worker.errors import ConnectionLostError, TransportError
from durable_worker.transports.rabbitmq.link import Link, channel_of, translated
from durable_worker.transports.rabbitmq.topology import consumers_if_any


class Inspection:
    """A channel for each look: one that finds no queue is closed by the broker."""

    def __init__(self) -> None:
        self._link: Link | None = None
        self._refusal: TransportError | None = None

    async def consumers(self, queue: str) -> int:
        if self._refusal is not None:
            raise self._refusal
        if self._link is None:
            raise ConnectionLostError("the broker is away at present; look again later")
        async with channel_of(self._link) as channel:
            return await consumers_if_any(channel, queue)

    async def delete(self, queue: str) -> None:
        """Delete a queue if the broker is there. Raises `ConnectionLostError`."""
        if self._link is not None:
            async with channel_of(self._link) as channel:
                with translated("delete queue", entity=queue):
                    await channel.delete_queue(queue)

    async def serve(self, link: Link) -> None:
        self._link = link
        try:
            await link.lost()
        finally:
            self._link = None

    def refuse(self, error: TransportError) -> None:
        self._refusal = error
