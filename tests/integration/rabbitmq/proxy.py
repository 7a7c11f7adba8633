"""A network between transport and broker that a test can cut, freeze and take away."""

import asyncio
import contextlib
import ssl
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

CHUNK = 65_536


class Proxy:
    """Forwards TCP to the broker at `url`; its own `url` leads through it. Entering listens.

    With `tls` it ends TLS in front of a plain port.
    """

    def __init__(
        self, url: str, *, is_listening: bool = True, tls: ssl.SSLContext | None = None
    ) -> None:
        self._tls = tls
        self._parts = urlsplit(url)
        self._is_listening = is_listening
        self._server: asyncio.Server | None = None
        self._port = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._is_thawed = asyncio.Event()
        self._is_thawed.set()

    async def __aenter__(self) -> Self:
        await self.listen()
        if not self._is_listening:
            await self.go_away()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.go_away()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        credentials, at, _ = self._parts.netloc.rpartition("@")
        scheme = self._parts.scheme if self._tls is None else "amqps"
        netloc = f"{credentials}{at}127.0.0.1:{self._port}"
        return self._parts._replace(scheme=scheme, netloc=netloc).geturl()

    async def listen(self) -> None:
        """Take connections, on the same port as before."""
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self._port, ssl=self._tls
        )
        self._port = self._server.sockets[0].getsockname()[1]

    async def go_away(self) -> None:
        """Refuse new connections and cut those that are open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def freeze(self) -> None:
        """Let nothing come back from the broker any more; what is sent to it still arrives."""
        self._is_thawed.clear()

    def thaw(self) -> None:
        self._is_thawed.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self._join(reader, writer)
        self._tasks.discard(task)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = self._parts.hostname or "127.0.0.1", self._parts.port or 5672
        from_broker, to_broker = await asyncio.open_connection(host, port)
        pair = {writer, to_broker}
        self._writers |= pair
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._upwards(reader, to_broker))
                group.create_task(self._downwards(from_broker, writer))
        except* OSError:
            pass
        finally:
            self._writers -= pair
            for each in pair:
                each.transport.abort()

    async def _upwards(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while chunk := await source.read(CHUNK):
            sink.write(chunk)
        raise ConnectionResetError

    async def _downwards(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while chunk := await source.read(CHUNK):
            await self._is_thawed.wait()
            sink.write(chunk)
        raise ConnectionResetError
