"""A message on its way in: method, header, and body in as many frames as it takes."""

from typing import Final

from durable_worker.transports.rabbitmq.amqp.errors import (
    SYNTAX_ERROR,
    UNEXPECTED_FRAME,
    PeerError,
)
from durable_worker.transports.rabbitmq.amqp.events import Message, Returned
from durable_worker.transports.rabbitmq.amqp.frames import (
    BASIC,
    BODY,
    CONTENT,
    CONTENT_FRAME,
    END,
    HEADER,
    PREAMBLE,
    PREAMBLE_SIZE,
)
from durable_worker.transports.rabbitmq.amqp.properties import Properties, read_properties
from durable_worker.transports.rabbitmq.amqp.tables import UNREADABLE, short_text

_NONE: Final = Properties()
_LEAST_CONTENT: Final = 2 * (PREAMBLE_SIZE + 1) + CONTENT.size + 2
_preamble = PREAMBLE.unpack_from
_content = CONTENT_FRAME.unpack_from


class Content:
    """`method`: the payload of the frame that announced it. All raise `PeerError`."""

    __slots__ = ("_body", "_channel", "_is_delivery", "_left", "_method", "_properties")

    def __init__(self, channel: int, method: bytes, *, is_delivery: bool) -> None:
        self._channel = channel
        self._method = method
        self._is_delivery = is_delivery
        self._properties = _NONE
        self._body: list[bytes] = []
        self._left = -1

    @property
    def is_whole(self) -> bool:
        return self._left == 0

    def begin(self, header: bytes) -> None:
        if self._left >= 0:
            raise PeerError(UNEXPECTED_FRAME, "a second header of one message")
        self._left, self._properties = read_header(header)

    def add(self, body: bytes) -> None:
        if self._left < len(body):
            raise PeerError(UNEXPECTED_FRAME, "more of a message than its header says")
        self._left -= len(body)
        self._body.append(body)

    def event(self) -> Message | Returned:
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        try:
            if self._is_delivery:
                consumer, tag = read_delivery(self._method)
                return Message(self._channel, consumer, tag, self._properties, body)
            _, at = short_text(self._method, 6)
            exchange, at = short_text(self._method, at)
            routing_key, _ = short_text(self._method, at)
        except IndexError:
            raise PeerError(SYNTAX_ERROR, "a message whose method is cut off") from None
        return Returned(self._channel, exchange, routing_key, self._properties, body)


def read_header(payload: bytes) -> tuple[int, Properties]:
    """Size of the body, and the properties."""
    try:
        kind, _, size = CONTENT.unpack_from(payload)
        properties = read_properties(payload[CONTENT.size :])
    except UNREADABLE:
        raise PeerError(SYNTAX_ERROR, "a header that is cut off") from None
    if kind != BASIC:
        raise PeerError(SYNTAX_ERROR, f"a header of class {kind}")
    return size, properties


def read_delivery(method: bytes) -> tuple[bytes, int]:
    """Consumer and delivery tag. Raises `IndexError` if it is cut off."""
    end = 5 + method[4]
    tag = int.from_bytes(method[end : end + 8])
    # The places of what else there must be: flag, exchange, routing key.
    exchange = end + 9
    routing_key = exchange + 1 + method[exchange]
    if routing_key + 1 + method[routing_key] > len(method):
        raise IndexError(routing_key)
    return method[5:end], tag


def message_at(data: bytes, channel: int, start: int, stop: int) -> tuple[Message, int] | None:
    """The message whose method begins and stops there, and the place behind it, if all of it is
    there in the next two frames. Else, and of whatever is odd, `Content` makes what there is to be
    made."""
    at, end = stop + 1, len(data)
    if end - at < _LEAST_CONTENT:
        return None
    kind, number, size, of_class, _, body_size = _content(data, at)
    header = at + CONTENT_FRAME.size
    at += PREAMBLE_SIZE + size
    body = at + 1 + PREAMBLE_SIZE
    if kind != HEADER or number != channel or of_class != BASIC or body > end or data[at] != END:
        return None
    kind, number, size = _preamble(data, at + 1)
    after = body + size
    if kind != BODY or number != channel or size != body_size:
        return None
    if after >= end or data[after] != END:
        return None
    try:
        consumer, tag = read_delivery(data[start:stop])
        properties = read_properties(data[header:at])
    except UNREADABLE:
        return None
    return Message(channel, consumer, tag, properties, data[body:after]), after + 1
