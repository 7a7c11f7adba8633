"""Frames of a connection, read so that one message with unreadable properties costs nobody else.

The library gives up the whole connection over a property that it cannot decode: text that is not
UTF-8, an instant beyond the year 9999, tables nested without end. The broker delivers the message
again on the next connection, for ever if it lies on the dead queue. Here such a property is left
out, or its text mended, and the message arrives.
"""

import struct
from asyncio import IncompleteReadError
from contextlib import suppress
from typing import Any, Final

import pamqp.frame
from aiormq import spec
from aiormq.connection import FrameReceiver, ReceivedFrame
from aiormq.exceptions import AMQPConnectionError, InvalidFrameError
from pamqp import decode
from pamqp.common import FieldTable
from pamqp.constants import FRAME_HEADER, FRAME_METHOD
from pamqp.exceptions import PAMQPException
from pamqp.header import ContentHeader

_PREAMBLE: Final = struct.Struct(">BHI")
_CONTENT: Final = struct.Struct(">HHQH")
_DELIVER: Final = spec.Basic.Deliver.index.to_bytes(4, "big")

_UNREADABLE = (PAMQPException, ValueError, ArithmeticError, RecursionError, OSError)
"""What the library raises over values that it cannot decode."""

_FIXED = dict(zip("tbBsuIilLfdDTV\0", (1, 1, 1, 2, 2, 4, 4, 8, 8, 4, 8, 5, 8, 0, 0), strict=True))
"""Bytes of a value in a table, by the letter of its type; all others state their length first."""


class Frames(FrameReceiver):
    """Goes on reading where the connection stands."""

    def __init__(self, frames: FrameReceiver) -> None:
        super().__init__(frames.reader)
        self.started = True

    async def get_frame(self) -> ReceivedFrame:
        if self.reader.at_eof():
            raise StopAsyncIteration
        try:
            preamble = await self.reader.readexactly(_PREAMBLE.size)
            kind, channel, size = _PREAMBLE.unpack(preamble)
            rest = await self.reader.readexactly(size + 1)
        except IncompleteReadError as error:
            raise AMQPConnectionError("the broker closed the connection") from error
        except OSError as error:
            raise AMQPConnectionError(f"the connection was lost: {error!r}") from error
        try:
            return pamqp.frame.unmarshal(preamble + rest)
        except _UNREADABLE as error:
            mended = _mended(kind, rest[:-1])
            if mended is None:
                raise InvalidFrameError(str(error)) from error
            return len(preamble) + len(rest), channel, mended


def _mended(kind: int, data: bytes) -> "ContentHeader | spec.Basic.Deliver | None":
    try:
        if kind == FRAME_HEADER:
            return readable_header(data)
        if kind == FRAME_METHOD and data.startswith(_DELIVER):
            return _readable_delivery(data[4:])
    except (struct.error, IndexError):
        pass
    return None


def readable_header(data: bytes) -> ContentHeader:
    """What can be read of a content header. Raises `struct.error`, `IndexError` if cut off."""
    _, _, size, flags = _CONTENT.unpack_from(data)
    rest = data[_CONTENT.size :]
    properties = spec.Basic.Properties()
    for name in spec.Basic.Properties.__slots__:
        if flags & spec.Basic.Properties.flags[name]:
            value, rest = _property(getattr(spec.Basic.Properties, f"_{name}"), rest)
            setattr(properties, name, value)
    return ContentHeader(body_size=size, properties=properties)


def _property(kind: str, data: bytes) -> tuple[Any, bytes]:
    match kind:
        case "table":
            end = 4 + _length(data)
            return _table(data[4:end]), data[end:]
        case "octet":
            return data[0], data[1:]
        case "timestamp":
            return None, data[8:]
        case _:
            return _short_text(data)


def _readable_delivery(data: bytes) -> spec.Basic.Deliver:
    consumer_tag, data = _short_text(data)
    delivery_tag = int.from_bytes(data[:8], "big")
    redelivered = bool(data[8] & 1)
    exchange, data = _short_text(data[9:])
    routing_key, _ = _short_text(data)
    return spec.Basic.Deliver(
        consumer_tag=consumer_tag,
        delivery_tag=delivery_tag,
        redelivered=redelivered,
        exchange=exchange,
        routing_key=routing_key,
    )


def _table(data: bytes) -> FieldTable:
    table: FieldTable = {}
    try:
        while data:
            name, data = _short_text(data)
            size = 1 + _size_of_value(data)
            with suppress(*_UNREADABLE):
                table[name] = decode.embedded_value(data[:size])[1]
            data = data[size:]
    except (struct.error, IndexError):
        pass  # nobody knows where the next entry would begin
    return table


def _size_of_value(data: bytes) -> int:
    fixed = _FIXED.get(chr(data[0]))
    return 4 + _length(data[1:]) if fixed is None else fixed


def _short_text(data: bytes) -> tuple[str, bytes]:
    end = 1 + data[0]
    text = data[1:end].decode("utf-8", "replace")
    # Not longer than it was: it must fit the same place when the message is sent on.
    return text.replace("\N{REPLACEMENT CHARACTER}", "?"), data[end:]


def _length(data: bytes) -> int:
    return int(struct.unpack_from(">I", data)[0])
