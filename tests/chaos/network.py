"""The network between one process and the broker, in the hands of a test.

Bytes are forwarded frame by frame, so that a cut can fall inside of one. A direction that is silent
keeps what it gets, as lost packets are sent again later: nothing arrives, and nobody hears of the
other side's end. It knows the consumers that pass by, and can end them behind the back of either.
"""

import asyncio
import contextlib
import struct
from collections import deque
from types import TracebackType
from typing import Self

from aiormq import spec
from pamqp import frame as frames

_GREETING_BYTES = 8
_HEAD = struct.Struct(">BHI")
_METHOD = 1
_CONSUME = b"\x00\x3c\x00\x14"


class Direction:
    """One way of all connections through a proxy."""

    def __init__(self) -> None:
        self._is_open = asyncio.Event()
        self._is_open.set()
        self.latency = 0.0
        self.is_cut_inside_next_frame = False

    def fall_silent(self) -> None:
        self._is_open.clear()

    def speak(self) -> None:
        self._is_open.set()

    async def heard(self) -> None:
        await self._is_open.wait()


class Proxy:
    """Forwards TCP on a port of its own to `port`; enter it to listen."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[_Connection] = set()
        self.port = 0
        self.to_broker = Direction()
        self.from_broker = Direction()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def connections(self) -> int:
        return len(self._open)

    def cut(self) -> None:
        """Reset every connection, on both sides."""
        for connection in [*self._open]:
            connection.reset()

    def consumers_of(self, queue: str) -> int:
        return sum(len(each.consumers.get(queue, ())) for each in self._open)

    def forget_consumers_of(self, queue: str) -> None:
        """The broker has ended them: those that are seen from now on are others."""
        for connection in self._open:
            connection.consumers.pop(queue, None)

    def end_consumers(self, queue: str, *, is_told: bool) -> int:
        """Cancel all consumers of a queue in the name of their client; how many there were.

        `is_told`: the client hears of it as from a broker that cancels. Else it is left to find
        out that it is alive and gets nothing.
        """
        ended = 0
        for connection in self._open:
            for channel, tag in connection.consumers.pop(queue, ()):
                cancel = spec.Basic.Cancel(consumer_tag=tag, nowait=True)
                data = frames.marshal(cancel, channel)
                connection.to_broker.write(data)
                if is_told:
                    connection.to_client.write(data)
                ended += 1
        return ended

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._join(reader, writer)
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._tasks.discard(task)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            broker, to_broker = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection(writer, to_broker)
        self._open.add(connection)
        try:
            async with asyncio.TaskGroup() as group:
                for source, sink, direction, greeting in (
                    (reader, to_broker, self.to_broker, _GREETING_BYTES),
                    (broker, writer, self.from_broker, 0),
                ):
                    way = _Way(source, sink, direction, connection, greeting=greeting)
                    group.create_task(way.read())
                    group.create_task(way.write())
        finally:
            self._open.discard(connection)
            connection.reset()


class _Connection:
    """`consumers` holds channel and tag of each, by queue."""

    def __init__(self, to_client: asyncio.StreamWriter, to_broker: asyncio.StreamWriter) -> None:
        self.to_client = to_client
        self.to_broker = to_broker
        self.consumers: dict[str, list[tuple[int, str]]] = {}

    def note(self, frame: bytes) -> None:
        """A frame of the client passes."""
        if frame[0] == _METHOD and frame[_HEAD.size : _HEAD.size + len(_CONSUME)] == _CONSUME:
            _, channel, consume = frames.unmarshal(frame)
            assert isinstance(consume, spec.Basic.Consume)
            where = (channel, consume.consumer_tag)
            self.consumers.setdefault(consume.queue, []).append(where)

    def reset(self) -> None:
        for each in (self.to_client, self.to_broker):
            each.transport.abort()


class _Way:
    """One direction of one connection: a reader, a writer, and what is on its way between them."""

    def __init__(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        direction: Direction,
        connection: _Connection,
        *,
        greeting: int,
    ) -> None:
        self._source = source
        self._sink = sink
        self._direction = direction
        self._connection = connection
        self._greeting = greeting
        self._frames: deque[tuple[float, bytes]] = deque()
        self._has_news = asyncio.Event()

    async def read(self) -> None:
        clock = asyncio.get_running_loop().time
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if self._greeting:
                self._put(clock(), await self._source.readexactly(self._greeting))
            while True:
                head = await self._source.readexactly(_HEAD.size)
                rest = await self._source.readexactly(_HEAD.unpack(head)[2] + 1)
                if self._greeting:
                    self._connection.note(head + rest)
                self._put(clock() + self._direction.latency, head + rest)
        self._put(clock() + self._direction.latency, b"")

    def _put(self, due: float, frame: bytes) -> None:
        self._frames.append((due, frame))
        self._has_news.set()

    async def write(self) -> None:
        clock = asyncio.get_running_loop().time
        with contextlib.suppress(OSError):
            while True:
                while not self._frames:
                    self._has_news.clear()
                    await self._has_news.wait()
                due, frame = self._frames.popleft()
                if due > clock():
                    await asyncio.sleep(due - clock())
                await self._direction.heard()
                if not frame:
                    break
                if self._direction.is_cut_inside_next_frame:
                    self._direction.is_cut_inside_next_frame = False
                    self._sink.write(frame[: len(frame) // 2])
                    await self._sink.drain()
                    break
                self._sink.write(frame)
                await self._sink.drain()
        self._end()

    def _end(self) -> None:
        # The other direction learns of it from its own source, once it is heard again.
        self._sink.close()
