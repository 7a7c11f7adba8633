"""The least that an aio-pika program can do: connect, consume, tell the first message."""

import asyncio
import sys

import aio_pika

from tests.bench.bell import ring


async def main(url: str, queue_name: str) -> None:
    connection = await aio_pika.connect(url)
    channel = await connection.channel()
    queue = await channel.declare_queue(queue_name, passive=True)
    async with queue.iterator() as messages:
        async for message in messages:
            ring()
            await message.ack()
            break
    await connection.close()


asyncio.run(main(sys.argv[1], sys.argv[2]))
