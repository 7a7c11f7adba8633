"""As much of Redis as it takes to look at the queues of BullMQ."""

import os
import socket
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from tests.bench.figures import UnavailableError

URL = os.environ.get("DURABLE_TEST_REDIS_URL", "redis://127.0.0.1:6379/0")
TIMEOUT_SECONDS = 30.0


class Redis:
    """One blocking connection. Raises `UnavailableError` where nothing answers."""

    def __init__(self, url: str = URL) -> None:
        parts = urlsplit(url)
        try:
            address = (parts.hostname or "127.0.0.1", parts.port or 6379)
            self._socket = socket.create_connection(address, TIMEOUT_SECONDS)
        except OSError as error:
            raise UnavailableError(f"no Redis at {parts.hostname}:{parts.port}: {error}") from error
        self._file = self._socket.makefile("rb")
        if parts.password:
            self.ask("AUTH", parts.password)
        self.ask("SELECT", parts.path.strip("/") or "0")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._socket.close()

    def ask(self, *words: str) -> Any:
        return self.ask_all([words])[0]

    def ask_all(self, commands: list[tuple[str, ...]]) -> list[Any]:
        """All commands at once, then their answers."""
        self._socket.sendall(b"".join(_encoded(words) for words in commands))
        return [self._answer() for _ in commands]

    def delete_all(self, pattern: str) -> None:
        cursor = "0"
        while True:
            found, keys = self.ask("SCAN", cursor, "MATCH", pattern, "COUNT", "1000")
            if keys:
                self.ask("UNLINK", *(key.decode() for key in keys))
            cursor = found.decode()
            if cursor == "0":
                return

    def _answer(self) -> Any:
        line = self._file.readline()
        kind, rest = line[:1], line[1:-2]
        match kind:
            case b"+":
                return rest.decode()
            case b":":
                return int(rest)
            case b"$":
                size = int(rest)
                return None if size < 0 else self._file.read(size + 2)[:-2]
            case b"*":
                return [self._answer() for _ in range(int(rest))]
            case _:
                raise UnavailableError(f"Redis says: {rest.decode() or 'nothing any more'}")


def _encoded(words: tuple[str, ...]) -> bytes:
    parts = [f"*{len(words)}\r\n".encode()]
    for word in words:
        data = word.encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
    return b"".join(parts)
