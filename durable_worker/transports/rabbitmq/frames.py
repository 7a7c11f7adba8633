"""Frames of the library's connection, read so that one message with unreadable properties costs
nobody else.

The library gives up the whole connection over a property that it cannot decode: text that is not
UTF-8, an instant beyond the year 9999, tables nested without end. The broker delivers the message
again on the next connection, for ever if it lies on the dead queue. Here such a property is left
out, or its text mended, and the message arrives.
"""

import struct
from asyncio import IncompleteReadError
from typing import Final

import pamqp.frame
from aiormq import spec
from aiormq.connection import FrameReceiver, ReceivedFrame
from aiormq.exceptions import AMQPConnectionError, InvalidFrameError
from msgspec import structs
from pamqp.constants import FRAME_HEADER, FRAME_METHOD
from pamqp.header import ContentHeader

from durable_worker.transports.rabbitmq.amqp.content import read_header
from durable_worker.transports.rabbitmq.amqp.errors import PeerError
from durable_worker.transports.rabbitmq.amqp.properties import Properties
from durable_worker.transports.rabbitmq.amqp.tables import UNREADABLE, short_text

_PREAMBLE: Final = struct.Struct(">BHI")
_DELIVER: Final = spec.Basic.Deliver.index.to_bytes(4, "big")


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
        except UNREADABLE as error:
            mended = _mended(kind, rest[:-1])
            if mended is None:
                raise InvalidFrameError(str(error)) from error
            return len(preamble) + len(rest), channel, mended


def library_properties(properties: Properties) -> spec.Basic.Properties:
    """Set one by one: the library's constructor would refuse what a peer may have stated."""
    made = spec.Basic.Properties()
    for name, value in structs.asdict(properties).items():
        setattr(made, name, value)
    return made


def own_properties(properties: spec.Basic.Properties) -> Properties:
    return Properties(**{name: getattr(properties, name) for name in Properties.__struct_fields__})


def _mended(kind: int, data: bytes) -> "ContentHeader | spec.Basic.Deliver | None":
    try:
        if kind == FRAME_HEADER:
            size, properties = read_header(data)
            return ContentHeader(body_size=size, properties=library_properties(properties))
        if kind == FRAME_METHOD and data.startswith(_DELIVER):
            return _readable_delivery(data)
    except (PeerError, IndexError):
        pass
    return None


def _readable_delivery(data: bytes) -> spec.Basic.Deliver:
    consumer_tag, at = short_text(data, 4)
    exchange, after = short_text(data, at + 9)
    routing_key, _ = short_text(data, after)
    return spec.Basic.Deliver(
        consumer_tag=consumer_tag,
        delivery_tag=int.from_bytes(data[at : at + 8]),
        redelivered=bool(data[at + 8] & 1),
        exchange=exchange,
        routing_key=routing_key,
    )
