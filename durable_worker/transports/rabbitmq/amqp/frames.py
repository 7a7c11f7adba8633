"""The frames of which there is one for each message, written by hand."""

import struct
from typing import Final

from durable_worker.transports.rabbitmq.amqp.properties import short

METHOD: Final = 1
HEADER: Final = 2
BODY: Final = 3
HEARTBEAT: Final = 8
END: Final = 0xCE

PREAMBLE: Final = struct.Struct(">BHI")
"""Kind, channel, and size of what follows before the end mark."""

PREAMBLE_SIZE: Final = PREAMBLE.size
FRAME_OVERHEAD: Final = PREAMBLE_SIZE + 1

HEARTBEAT_FRAME: Final = PREAMBLE.pack(HEARTBEAT, 0, 0) + b"\xce"
PROTOCOL_HEADER: Final = b"AMQP\x00\x00\x09\x01"

DELIVER: Final = b"\x00\x3c\x00\x3c"
RETURN: Final = b"\x00\x3c\x00\x32"
ACK: Final = b"\x00\x3c\x00\x50"
NACK: Final = b"\x00\x3c\x00\x78"

TAG_AND_BITS: Final = struct.Struct(">QB")
CONTENT: Final = struct.Struct(">HHQ")
"""Class, weight and body size: what a content header begins with."""

CONTENT_FRAME: Final = struct.Struct(">BHIHHQ")
"""The same with the preamble of its frame."""

BASIC: Final = 60

_ANSWER: Final = struct.Struct(">BHIIQBB")
_ACK_METHOD, _NACK_METHOD = 0x003C0050, 0x003C0078
_PUBLISH: Final = b"\x00\x3c\x00\x28\x00\x00"
_BETWEEN: Final = struct.Struct(">BBHI")


def ack_frame(channel: int, tag: int, *, multiple: bool) -> bytes:
    return _ANSWER.pack(METHOD, channel, 13, _ACK_METHOD, tag, multiple, END)


def nack_frame(channel: int, tag: int, *, requeue: bool) -> bytes:
    return _ANSWER.pack(METHOD, channel, 13, _NACK_METHOD, tag, requeue << 1, END)


def publish_frame(channel: int, exchange: str, routing_key: str, *, mandatory: bool) -> bytes:
    """The method alone; its content follows. Raises `ValueError` for names that are too long."""
    payload = _PUBLISH + short(exchange) + short(routing_key) + bytes([mandatory])
    return PREAMBLE.pack(METHOD, channel, len(payload)) + payload + b"\xce"


def content_frames(channel: int, properties: bytes, body: bytes, *, most: int) -> bytes:
    """Header and body, the latter in frames with a payload of at most `most` bytes."""
    size = len(body)
    header = CONTENT_FRAME.pack(HEADER, channel, 12 + len(properties), BASIC, 0, size)
    if 0 < size <= most:
        between = _BETWEEN.pack(END, BODY, channel, size)
        return b"".join((header, properties, between, body, b"\xce"))
    parts = [header, properties, b"\xce"]
    for start in range(0, size, most):
        chunk = body[start : start + most]
        parts += (PREAMBLE.pack(BODY, channel, len(chunk)), chunk, b"\xce")
    return b"".join(parts)
