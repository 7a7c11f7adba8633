"""AMQP properties of any kind: each message arrives, and can be buried."""

import struct

from aiormq import spec
from aiormq.abc import DeliveredMessage
from pamqp.exceptions import PAMQPException
from pamqp.frame import unmarshal
from pamqp.header import ContentHeader

from durable_worker.transports.base import Envelope
from durable_worker.transports.dead_letters import dead_letter
from durable_worker.transports.rabbitmq.frames import readable_header
from durable_worker.transports.rabbitmq.messages import (
    delivery_count_of,
    to_envelope,
    to_properties,
)

FRAME_MAX = 131_072
"""RabbitMQ's: a content header that is larger costs the connection."""


def read_properties(data: bytes) -> None:
    """`data`: a content header as it comes over the connection."""
    try:
        header = readable_header(data)
    except (struct.error, IndexError):
        return  # cut off; a broker sends whole ones
    _carries(header)
    frame = struct.pack(">BHI", 2, 1, len(data)) + data + b"\xce"
    try:
        decoded = unmarshal(frame)[2]
    except (PAMQPException, ValueError, ArithmeticError, RecursionError, OSError):
        return  # exactly what the lenient way is for
    assert isinstance(decoded, ContentHeader)
    _carries(decoded)


def envelope_of(header: ContentHeader) -> Envelope:
    return to_envelope(_message(header))


def _carries(header: ContentHeader) -> None:
    assert isinstance(delivery_count_of(_message(header)), int)
    letter = dead_letter(envelope_of(header), "r" * 100_000)
    sent = ContentHeader(body_size=0, properties=to_properties(letter, persistent=True)).marshal()
    assert len(sent) < FRAME_MAX


def _message(header: ContentHeader) -> DeliveredMessage:
    return DeliveredMessage(spec.Basic.Deliver(), header, b"{}", None)  # type: ignore[arg-type]
