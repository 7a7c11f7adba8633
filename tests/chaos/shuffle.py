"""Somebody between the broker and its consumers who hands messages on twice and in disorder."""

import asyncio
import json
from contextlib import suppress
from random import Random

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

PUBLISH_SECONDS = 30.0


async def shuffle(
    url: str, queue: str, random: Random, *, count: int, patience: float
) -> tuple[list[str], list[str]]:
    """Take up to `count` messages from a queue and put each back twice, in any order.

    The message ids that were doubled, and the runs that they belong to.
    """
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        await channel.set_qos(prefetch_count=count)
        source = await channel.get_queue(queue, ensure=False)
        taken: list[AbstractIncomingMessage] = []
        is_enough = asyncio.Event()

        async def take(message: AbstractIncomingMessage) -> None:
            taken.append(message)
            if len(taken) >= count:
                is_enough.set()

        tag = await source.consume(take)
        with suppress(TimeoutError):
            await asyncio.wait_for(is_enough.wait(), patience)
        await source.cancel(tag)
        copies = [*taken, *taken]
        random.shuffle(copies)
        for message in copies:
            await asyncio.wait_for(
                channel.default_exchange.publish(_copy(message), queue), PUBLISH_SECONDS
            )
        for message in taken:
            await message.ack()
    bodies = [json.loads(message.body) for message in taken]
    return (
        [message.message_id or "" for message in taken],
        [str(body.get("runId", "")) for body in bodies],
    )


def _copy(message: AbstractIncomingMessage) -> aio_pika.Message:
    return aio_pika.Message(
        message.body,
        headers={key: value for key, value in message.headers.items() if key[:2] != "x-"},
        content_type=message.content_type,
        delivery_mode=message.delivery_mode,
        message_id=message.message_id,
        type=message.type,
    )
