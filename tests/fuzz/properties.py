"""AMQP properties of any kind: each message arrives, and can be buried."""

import struct

from pamqp.exceptions import PAMQPException
from pamqp.frame import unmarshal
from pamqp.header import ContentHeader

from durable_worker.transports.base import Envelope
from durable_worker.transports.dead_letters import dead_letter
from durable_worker.transports.rabbitmq.amqp.content import read_header
from durable_worker.transports.rabbitmq.amqp.errors import PeerError
from durable_worker.transports.rabbitmq.amqp.events import Message
from durable_worker.transports.rabbitmq.amqp.properties import Properties
from durable_worker.transports.rabbitmq.frames import own_properties
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
        _, properties = read_header(data)
    except PeerError:
        return  # cut off; a broker sends whole ones
    _carries(properties)
    frame = struct.pack(">BHI", 2, 1, len(data)) + data + b"\xce"
    try:
        decoded = unmarshal(frame)[2]
    except (PAMQPException, ValueError, ArithmeticError, RecursionError, OSError):
        return  # exactly what the lenient way is for
    assert isinstance(decoded, ContentHeader)
    _carries(own_properties(decoded.properties))


def envelope_of(properties: Properties) -> Envelope:
    return to_envelope(_message(properties))


def _carries(properties: Properties) -> None:
    assert isinstance(delivery_count_of(_message(properties)), int)
    letter = dead_letter(envelope_of(properties), "r" * 100_000)
    assert len(to_properties(letter, persistent=True)) + 12 < FRAME_MAX


def _message(properties: Properties) -> Message:
    return Message(1, b"1.1", 1, properties, b"{}")
