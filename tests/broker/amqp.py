"""The few things that set-up asks a broker over AMQP, for callers without an event loop."""

import asyncio
from collections.abc import Awaitable, Callable, Collection

from aio_pika import connect
from aio_pika.abc import AbstractConnection

from tests.servers import completed

ANSWER_SECONDS = 10.0


def refusal(url: str) -> str | None:
    """None if the broker lets us in, else why not, in a few words without the password."""

    async def enter(connection: AbstractConnection) -> None:
        await connection.channel()

    try:
        _with_connection(url, enter)
    except Exception as error:  # whatever it is: no test can use this broker
        return f"{type(error).__name__}: {error}".rstrip(". ")
    return None


def delete(url: str, *, queues: Collection[str], exchanges: Collection[str]) -> None:
    """Delete what exists of these; the broker does not mind the rest."""

    async def remove(connection: AbstractConnection) -> None:
        channel = await connection.channel()
        for queue in queues:
            await channel.queue_delete(queue)
        for exchange in exchanges:
            await channel.exchange_delete(exchange)

    _with_connection(url, remove)


def _with_connection(url: str, work: Callable[[AbstractConnection], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(ANSWER_SECONDS):
            async with await connect(url) as connection:
                await work(connection)

    completed(run())
