"""The socket of a connection, shared by the event loop and a thread that sends heartbeats.

A heartbeat may stand between two AMQP frames only, and under TLS between two records in the order
in which they were encrypted. Whole frames are all that is ever written to the connection, so the
stream is between two frames whenever all that was written has left.
"""

import socket
from contextlib import nullcontext
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed import ReadableBuffer

    from durable_worker.transports.rabbitmq.sealing import Sealing

HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"


class Wire(socket.socket):
    """asyncio's transport sends through it as through any socket; `beat` may come in between.

    It leans on what asyncio's own transports do: they call `send` on the socket that they are
    given, and offer again what it did not take. Other event loops go past it, see `is_in_use`.
    """

    def __init__(self, family: int, kind: int, proto: int = 0) -> None:
        super().__init__(family, kind, proto)
        self.setblocking(False)
        self._lock = Lock()
        self._sealing: Sealing | None = None
        self._left = 0
        self._seen = 0
        # What the loop has offered and the kernel has not taken yet: the loop will offer it again.
        self._rest = bytearray()
        # How much of that has left meanwhile by our doing: the loop must be told that it has.
        self._ahead = 0
        self._heartbeat = b""

    @property
    def is_in_use(self) -> bool:
        """Whether what is written to the connection comes through here."""
        return self._left > 0

    def seal_with(self, sealing: "Sealing") -> None:
        """What is sent from now on is TLS, and so must heartbeats be."""
        self._sealing = sealing

    def has_unread(self) -> bool:
        """Whether something has arrived that the event loop has not come to read."""
        try:
            return bool(self.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def beat_if_silent(self) -> None:
        """Send a heartbeat if nothing has left since the last call. Raises nothing."""
        if self._left == self._seen:
            self._beat()
        self._seen = self._left

    # For asyncio

    def send(self, data: "ReadableBuffer", flags: int = 0, /) -> int:
        with self._lock:
            if not self._send_heartbeat():
                raise BlockingIOError
            if self._ahead:
                taken, self._ahead = self._ahead, 0
                return taken
            taken = self._put(data, flags)
            self._left += taken
            if self._rest or taken < len(cast("bytes", data)):
                self._remember(data, taken)
            return taken

    def sendmsg(self, buffers: "Iterable[ReadableBuffer]", /, *_: Any) -> int:
        # One at a time: each is what one write gave, or is left of it.
        return self.send(next(iter(buffers)))

    def close(self) -> None:
        with self._lock:  # else the thread could write to a file that gets the number next
            super().close()

    # Inside

    def _remember(self, offered: "ReadableBuffer", taken: int) -> None:
        with memoryview(offered) as data:
            self._rest += data[len(self._rest) :]
        del self._rest[:taken]

    def _put(self, data: "ReadableBuffer", flags: int = 0) -> int:
        return super().send(data, flags)

    def _beat(self) -> None:
        sealing = self._sealing
        with nullcontext() if sealing is None else sealing.lock, self._lock:
            try:
                if not (self._send_heartbeat() and self._send_rest()):
                    return
                if sealing is None:
                    self._heartbeat = HEARTBEAT
                elif sealing.is_between_frames and sealing.produced == self._left:
                    self._heartbeat = sealing.seal(HEARTBEAT)
                self._send_heartbeat()
            except OSError:
                return  # full, or closed: in either case the event loop will see

    def _send_heartbeat(self) -> bool:
        """Whether nothing is left of a heartbeat that was begun."""
        if self._heartbeat:
            try:
                sent = self._put(self._heartbeat)
            except BlockingIOError:
                return False
            self._heartbeat = self._heartbeat[sent:]
            self._left += sent
        return not self._heartbeat

    def _send_rest(self) -> bool:
        """Whether the kernel has now taken all that the loop has offered."""
        while self._rest:
            sent = self._put(self._rest)
            del self._rest[:sent]
            self._ahead += sent
            self._left += sent
        return True
