"""Notes which queues and exchanges a session declares on a broker that it shares with others.

AMQP cannot list queues, and a broker that gives us no virtual host gives us no other listing
either. So the session talks to it through this relay, which forwards every byte unchanged.
"""

import asyncio
import contextlib
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

PROTOCOL_HEADER_BYTES = 8
METHOD_FRAME = 1
QUEUE_DECLARE = b"\x00\x32\x00\x0a"
EXCHANGE_DECLARE = b"\x00\x28\x00\x0a"


@dataclass(slots=True)
class Declared:
    queues: set[str] = field(default_factory=set)
    exchanges: set[str] = field(default_factory=set)

    def note(self, payload: bytes) -> None:
        names = {QUEUE_DECLARE: self.queues, EXCHANGE_DECLARE: self.exchanges}.get(payload[:4])
        if names is not None:
            # class, method, a reserved short, then the name as a short string.
            names.add(payload[7 : 7 + payload[6]].decode())


@contextmanager
def relay_to(url: str, declared: Declared) -> Iterator[str]:
    """Yield a URL that leads to the same plain-text broker and fills `declared` on the way."""
    parts = urlsplit(url)
    host, port = parts.hostname or "localhost", parts.port or 5672
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            from_broker, to_broker = await asyncio.open_connection(host, port)
            await _join(reader, writer, from_broker, to_broker, declared)
        writer.close()

    async def close(server: asyncio.Server) -> None:
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    try:
        opening = asyncio.start_server(serve, "127.0.0.1", 0)
        server = asyncio.run_coroutine_threadsafe(opening, loop).result()
        own = server.sockets[0].getsockname()[1]
        credentials, at, _ = parts.netloc.rpartition("@")
        yield parts._replace(netloc=f"{credentials}{at}127.0.0.1:{own}").geturl()
        asyncio.run_coroutine_threadsafe(close(server), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _join(
    client: asyncio.StreamReader,
    to_client: asyncio.StreamWriter,
    broker: asyncio.StreamReader,
    to_broker: asyncio.StreamWriter,
    declared: Declared,
) -> None:
    """Forward both ways until either side ends."""

    async def upwards() -> None:
        to_broker.write(await client.readexactly(PROTOCOL_HEADER_BYTES))
        while True:
            head = await client.readexactly(7)
            kind, _, size = struct.unpack(">BHI", head)
            rest = await client.readexactly(size + 1)
            if kind == METHOD_FRAME:
                declared.note(rest)
            to_broker.write(head + rest)
            await to_broker.drain()

    async def downwards() -> None:
        while chunk := await broker.read(65_536):
            to_client.write(chunk)
            await to_client.drain()

    directions = {asyncio.ensure_future(upwards()), asyncio.ensure_future(downwards())}
    try:
        await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for direction in directions:
            direction.cancel()
        await asyncio.gather(*directions, return_exceptions=True)
        to_broker.close()
