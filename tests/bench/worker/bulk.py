"""A blocking AMQP client that costs the machine next to nothing: it loads queues before a worker
starts, looks how full they are while it runs, and empties them after it."""

import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from pamqp import commands, frame
from pamqp.header import ContentHeader, ProtocolHeader

TIMEOUT_SECONDS = 60.0
WINDOW = 500
"""Messages that wait for their confirm at one time."""

_CHANNEL = 1
_CHUNK = 1 << 18


class BulkError(Exception):
    """The broker closed the channel or the connection; the text is its own."""


class Bulk:
    """One connection with one channel in confirm mode."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._buffer, self._at = b"", 0
        self._published = 0
        self._unconfirmed: set[int] = set()
        address = (parts.hostname or "127.0.0.1", parts.port or 5672)
        self._socket = socket.create_connection(address, TIMEOUT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(ProtocolHeader().marshal())
        self._expect(commands.Connection.Start, channel=0)
        login = f"\0{unquote(parts.username or 'guest')}\0{unquote(parts.password or 'guest')}"
        self._send(commands.Connection.StartOk(mechanism="PLAIN", response=login), channel=0)
        tune = self._expect(commands.Connection.Tune, channel=0)
        self._frame_max = tune.frame_max
        self._send(commands.Connection.TuneOk(tune.channel_max, tune.frame_max, 0), channel=0)
        vhost = unquote(parts.path[1:]) or "/"
        self._send(commands.Connection.Open(vhost), channel=0)
        self._expect(commands.Connection.OpenOk, channel=0)
        self._call(commands.Channel.Open(), commands.Channel.OpenOk)
        self._call(commands.Confirm.Select(), commands.Confirm.SelectOk)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def declare(self, queue: str, arguments: Mapping[str, Any]) -> None:
        request = commands.Queue.Declare(queue=queue, durable=True, arguments=dict(arguments))
        self._call(request, commands.Queue.DeclareOk)

    def delete(self, queue: str) -> None:
        self._call(commands.Queue.Delete(queue=queue), commands.Queue.DeleteOk)

    def depth(self, queue: str) -> int:
        """Messages that wait in it; those that a consumer holds do not count."""
        request = commands.Queue.Declare(queue=queue, passive=True)
        return int(self._call(request, commands.Queue.DeclareOk).message_count)

    def load(self, queue: str, messages: Iterable[tuple[commands.Basic.Properties, bytes]]) -> None:
        """Publish all of them; returns when the broker has confirmed each."""
        batch: list[bytes] = []
        for properties, body in messages:
            batch.append(self._message(queue, properties, body))
            if len(batch) == WINDOW:
                self._publish(batch)
        self._publish(batch)

    def post(self, queue: str, properties: commands.Basic.Properties, body: bytes) -> None:
        """Publish one message and do not wait for its confirm."""
        self._socket.sendall(self._message(queue, properties, body))
        self._published += 1  # its confirm is not waited for, but has a tag

    def consume(self, queue: str) -> None:
        """What comes from it is acknowledged by itself; `receive` gives it."""
        self._call(commands.Basic.Consume(queue=queue, no_ack=True), commands.Basic.ConsumeOk)

    def receive(self) -> tuple[commands.Basic.Properties, bytes]:
        self._expect(commands.Basic.Deliver, channel=_CHANNEL)
        return self._receive_content()

    def drain(self, queue: str) -> Iterator[tuple[commands.Basic.Properties, bytes]]:
        """All messages that wait in it."""
        count = self.depth(queue)
        consume = commands.Basic.Consume(queue=queue, no_ack=True)
        tag = self._call(consume, commands.Basic.ConsumeOk).consumer_tag
        for _ in range(count):
            yield self.receive()
        self._call(commands.Basic.Cancel(tag), commands.Basic.CancelOk)

    # Inside

    def _message(self, queue: str, properties: commands.Basic.Properties, body: bytes) -> bytes:
        publish = commands.Basic.Publish(routing_key=queue, mandatory=True)
        header = ContentHeader(body_size=len(body), properties=properties)
        parts = [frame.marshal(publish, _CHANNEL), frame.marshal(header, _CHANNEL)]
        most = self._frame_max - 8
        for start in range(0, len(body), most):
            piece = body[start : start + most]
            parts.append(struct.pack(">BHI", 3, _CHANNEL, len(piece)) + piece + b"\xce")
        return b"".join(parts)

    def _publish(self, batch: list[bytes]) -> None:
        self._socket.sendall(b"".join(batch))
        self._unconfirmed.update(range(self._published + 1, self._published + len(batch) + 1))
        self._published += len(batch)
        batch.clear()
        while self._unconfirmed:
            self._next_method()

    def _receive_content(self) -> tuple[commands.Basic.Properties, bytes]:
        _, _, header = frame.unmarshal(self._next_frame())
        assert isinstance(header, ContentHeader)
        body = b""
        while len(body) < header.body_size:
            body += self._next_frame()[7:-1]
        return header.properties, body

    def _send(self, method: frame.base.Frame, *, channel: int) -> None:
        self._socket.sendall(frame.marshal(method, channel))

    def _call(self, request: frame.base.Frame, answer: type[Any]) -> Any:
        self._send(request, channel=_CHANNEL)
        return self._expect(answer, channel=_CHANNEL)

    def _expect(self, answer: type[Any], *, channel: int) -> Any:
        """The next method of this kind; confirms that come before it are taken down."""
        while True:
            on_channel, method = self._next_method()
            if isinstance(method, answer) and on_channel == channel:
                return method

    def _next_method(self) -> tuple[int, object]:
        _, channel, method = frame.unmarshal(self._next_frame())
        match method:
            case commands.Basic.Ack(delivery_tag=tag, multiple=True):
                self._unconfirmed = {each for each in self._unconfirmed if each > tag}
            case commands.Basic.Ack(delivery_tag=tag):
                self._unconfirmed.discard(tag)
            case commands.Basic.Nack():
                raise BulkError("the broker refused a message")
            case commands.Basic.Return():
                raise BulkError(f"unroutable: {method.routing_key}")
            case commands.Channel.Close() | commands.Connection.Close():
                raise BulkError(f"{method.reply_code} {method.reply_text}")
        return channel, method

    def _next_frame(self) -> bytes:
        while len(self._buffer) < self._at + 7:
            self._more()
        end = self._at + 8 + int.from_bytes(self._buffer[self._at + 3 : self._at + 7], "big")
        while len(self._buffer) < end:
            end -= self._at
            self._more()
        taken, self._at = self._buffer[self._at : end], end
        return taken

    def _more(self) -> None:
        received = self._socket.recv(_CHUNK)
        if not received:
            raise BulkError("the broker closed the connection")
        self._buffer, self._at = self._buffer[self._at :] + received, 0
