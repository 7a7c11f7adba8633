"""TLS of a connection whose socket a thread sends heartbeats through."""

import ssl
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any, Self, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from _typeshed import ReadableBuffer, WriteableBuffer


class Sealing(ssl.SSLObject):
    """TLS of one connection: counts the bytes that it makes, for a `Wire` to compare with those
    that left. asyncio makes it where `SSLContext.sslobject_class` says so.
    """

    _outgoing: ssl.MemoryBIO
    lock: Lock
    produced: int
    is_between_frames: bool

    @classmethod
    def _create(cls, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, **kwargs: Any) -> Self:
        # What `SSLContext.wrap_bio` calls; it is not in the stubs.
        create = cast("Callable[..., Self]", super()._create)  # type: ignore[misc]
        self = create(incoming, outgoing, **kwargs)
        self._outgoing = outgoing
        self.lock, self.produced, self.is_between_frames = Lock(), 0, True
        return self

    def seal(self, data: bytes) -> bytes:
        """Encrypt apart from what the event loop writes; the caller holds the lock."""
        with self._counting():
            self._write(data)
        return self._outgoing.read()

    # For asyncio

    def write(self, data: "ReadableBuffer") -> int:
        with self.lock, self._counting():
            return self._write(data)

    def read(self, len: int = 1024, buffer: "WriteableBuffer | None" = None) -> Any:
        with self.lock, self._counting():
            return super().read(len, buffer)

    def do_handshake(self) -> None:
        with self.lock, self._counting():
            super().do_handshake()

    def unwrap(self) -> None:
        with self.lock, self._counting():
            super().unwrap()

    def _write(self, data: "ReadableBuffer") -> int:
        # Only a part may be taken, a record's worth; and what fails must be repeated as it was.
        self.is_between_frames = False
        taken = super().write(data)
        with memoryview(data) as offered:
            self.is_between_frames = taken == len(offered)
        return taken

    @contextmanager
    def _counting(self) -> "Generator[None]":
        waiting = self._outgoing.pending
        try:
            yield
        finally:
            self.produced += self._outgoing.pending - waiting
