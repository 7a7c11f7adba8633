"""Properties of a message: what AMQP lets a sender state beside the body."""

import struct
from collections import deque
from collections.abc import Mapping
from datetime import datetime
from typing import Final

from msgspec import Struct
from pamqp import decode

from durable_worker.transports.rabbitmq.amqp.tables import (
    UNREADABLE,
    Table,
    mended_text,
    read_table,
    short_text,
    write_table,
)

_FLAGS: Final = struct.Struct(">H")
_INSTANT: Final = struct.Struct(">Q")
_MORE_FLAGS: Final = 1
_MOST_CACHED_BYTES: Final = 128
_MOST_CACHED: Final = 256

_CONTENT_TYPE, _ENCODING, _HEADERS, _MODE, _PRIORITY = 0x8000, 0x4000, 0x2000, 0x1000, 0x0800
_CORRELATION, _REPLY_TO, _EXPIRATION, _ID, _TIME = 0x0400, 0x0200, 0x0100, 0x0080, 0x0040
_TYPE, _USER, _APP, _CLUSTER = 0x0020, 0x0010, 0x0008, 0x0004


class Properties(Struct, frozen=True, gc=False):
    """Those of a message, by their names in AMQP but for `message_type`."""

    content_type: str | None = None
    content_encoding: str | None = None
    headers: Mapping[str, object] | None = None
    delivery_mode: int | None = None
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None
    message_id: str | None = None
    timestamp: datetime | None = None
    message_type: str | None = None
    user_id: str | None = None
    app_id: str | None = None


class _Shape:
    """All that stands around the id in the properties of many messages."""

    __slots__ = ("after", "before", "like")

    def __init__(self, before: bytes, after: bytes, like: Properties) -> None:
        self.before = before
        self.after = after
        self.like = like

    def filled(self, message_id: bytes) -> Properties:
        like = self.like
        return Properties(
            like.content_type,
            like.content_encoding,
            like.headers,
            like.delivery_mode,
            like.priority,
            like.correlation_id,
            like.reply_to,
            like.expiration,
            mended_text(message_id),
            like.timestamp,
            like.message_type,
            like.user_id,
            like.app_id,
        )


_shapes: deque[_Shape] = deque(maxlen=8)
"""Those that were met last: a queue has messages of one or two."""

_tables: dict[bytes, Table] = {}
"""Short tables that were read lately: most messages have one of a few."""


def read_properties(data: bytes) -> Properties:
    """`data`: flags and values, as they stand behind the body's size in a content header.

    A value that cannot be decoded is left out, or its text mended. Raises `IndexError` or
    `struct.error` if it is cut off.
    """
    for shape in _shapes:
        if data.startswith(shape.before) and data.endswith(shape.after):
            start = len(shape.before) + 1
            stop = len(data) - len(shape.after)
            if stop - start == data[start - 1]:
                return shape.filled(data[start:stop])
    return _read_all(data)


def _read_all(data: bytes) -> Properties:  # noqa: PLR0912 - one for each property
    flags = data[0] << 8 | data[1]
    at = 2
    while data[at - 1] & _MORE_FLAGS:  # flags of properties that no version has
        _FLAGS.unpack_from(data, at)
        at += 2
    content_type = encoding = headers = mode = priority = correlation = reply_to = None
    expiration = message_id = time = kind = user = app = None
    if flags & _CONTENT_TYPE:
        content_type, at = short_text(data, at)
    if flags & _ENCODING:
        encoding, at = short_text(data, at)
    if flags & _HEADERS:
        end = at + 4 + int.from_bytes(data[at : at + 4])
        headers = _table(data[at + 4 : end])
        at = end
    if flags & _MODE:
        mode = data[at]
        at += 1
    if flags & _PRIORITY:
        priority = data[at]
        at += 1
    if flags & _CORRELATION:
        correlation, at = short_text(data, at)
    if flags & _REPLY_TO:
        reply_to, at = short_text(data, at)
    if flags & _EXPIRATION:
        expiration, at = short_text(data, at)
    before = after = at
    if flags & _ID:
        message_id, after = short_text(data, at)
        at = after
    if flags & _TIME:
        _INSTANT.unpack_from(data, at)  # not cut off, whatever it says
        time = _instant(data[at : at + 8])
        at += 8
    if flags & _TYPE:
        kind, at = short_text(data, at)
    if flags & _USER:
        user, at = short_text(data, at)
    if flags & _APP:
        app, at = short_text(data, at)
    properties = Properties(
        content_type=content_type,
        content_encoding=encoding,
        headers=headers,
        delivery_mode=mode,
        priority=priority,
        correlation_id=correlation,
        reply_to=reply_to,
        expiration=expiration,
        message_id=message_id,
        timestamp=time,
        message_type=kind,
        user_id=user,
        app_id=app,
    )
    if flags & _ID and len(data) <= _MOST_CACHED_BYTES:
        _shapes.appendleft(_Shape(data[:before], data[after:], properties))
    return properties


def write_properties(properties: Properties) -> bytes:
    """Flags and values, as `read_properties` takes them. Raises `ValueError` for a text of more
    than 255 bytes, `TypeError` and `ValueError` for headers that AMQP has no place for."""
    p = properties
    flags = 0
    parts: list[bytes] = [b""]
    for flag, text in ((_CONTENT_TYPE, p.content_type), (_ENCODING, p.content_encoding)):
        if text is not None:
            flags |= flag
            parts.append(short(text))
    if p.headers is not None:
        flags |= _HEADERS
        parts.append(write_table({**p.headers}))
    for flag, number in ((_MODE, p.delivery_mode), (_PRIORITY, p.priority)):
        if number is not None:
            flags |= flag
            parts.append(bytes([number]))
    for flag, text in (
        (_CORRELATION, p.correlation_id),
        (_REPLY_TO, p.reply_to),
        (_EXPIRATION, p.expiration),
        (_ID, p.message_id),
    ):
        if text is not None:
            flags |= flag
            parts.append(short(text))
    if p.timestamp is not None:
        flags |= _TIME
        parts.append(int(p.timestamp.timestamp()).to_bytes(8))
    for flag, text in ((_TYPE, p.message_type), (_USER, p.user_id), (_APP, p.app_id)):
        if text is not None:
            flags |= flag
            parts.append(short(text))
    parts[0] = _FLAGS.pack(flags)
    return b"".join(parts)


class Template:
    """Properties that messages share but for their ids, written once."""

    def __init__(self, properties: Properties) -> None:
        whole = Properties(
            content_type=properties.content_type,
            content_encoding=properties.content_encoding,
            headers=properties.headers,
            delivery_mode=properties.delivery_mode,
            priority=properties.priority,
            correlation_id=properties.correlation_id,
            reply_to=properties.reply_to,
            expiration=properties.expiration,
        )
        rest = Properties(
            timestamp=properties.timestamp,
            message_type=properties.message_type,
            user_id=properties.user_id,
            app_id=properties.app_id,
        )
        before, after = write_properties(whole), write_properties(rest)
        flags = _FLAGS.unpack_from(before)[0] | _FLAGS.unpack_from(after)[0] | _ID
        self._before = _FLAGS.pack(flags) + before[2:]
        self._after = after[2:]

    def with_id(self, message_id: str) -> bytes:
        """Raises `ValueError` for one of more than 255 bytes."""
        text = message_id.encode()
        return b"%b%c%b%b" % (self._before, len(text), text, self._after)


def short(text: str) -> bytes:
    """A short string of AMQP. Raises `ValueError` for more than 255 bytes."""
    data = text.encode()
    return bytes([len(data)]) + data


def _table(data: bytes) -> Table:
    known = _tables.get(data)
    if known is not None:
        return known
    table = read_table(data)
    if len(data) <= _MOST_CACHED_BYTES:
        if len(_tables) >= _MOST_CACHED:
            _tables.clear()
        _tables[data] = table
    return table


def _instant(data: bytes) -> datetime | None:
    try:
        return decode.timestamp(data)[1]
    except UNREADABLE:
        return None
