"""Envelopes to AMQP properties and back (protocol/README.md, "AMQP binding")."""

from datetime import timedelta
from functools import lru_cache
from typing import Final

from durable_worker.protocol.base import PROTOCOL_VERSION, SIGNATURE_HEADER
from durable_worker.transports.base import DEATH_HEADER, DEATH_QUEUE_HEADER, ERROR_HEADER, Envelope
from durable_worker.transports.rabbitmq.amqp.events import Message
from durable_worker.transports.rabbitmq.amqp.properties import (
    Properties,
    Template,
    write_properties,
)
from durable_worker.transports.rabbitmq.copies import deaths_elsewhere, deliveries_before

PROTOCOL_HEADER: Final = "durable-protocol"
UNKNOWN_PROTOCOL: Final = 0
"""Stands for a protocol header that cannot be read; no version has it."""

_MOST_DIGITS: Final = 15
"""Of a number that a peer may state as text: well below what an integer or a duration can hold."""

_PERSISTENT = 2
_TRANSIENT = 1


_templates: dict[tuple[str | None, int | None, bool], Template] = {}
"""Of messages that state nothing beside their type, protocol and id, as most do."""

_MOST_TEMPLATES = 100


def to_properties(envelope: Envelope, *, persistent: bool) -> bytes:
    """As the broker takes them."""
    if envelope.headers or envelope.expires is not None:
        return write_properties(_properties(envelope, persistent=persistent))
    if envelope.message_id is None:
        return _without_id(envelope.type, envelope.protocol, persistent)
    key = (envelope.type, envelope.protocol, persistent)
    template = _templates.get(key)
    if template is None:
        if len(_templates) >= _MOST_TEMPLATES:
            _templates.clear()
        template = _templates[key] = Template(_properties(envelope, persistent=persistent))
    return template.with_id(envelope.message_id)


@lru_cache(_MOST_TEMPLATES)
def _without_id(kind: str | None, protocol: int | None, persistent: bool) -> bytes:
    envelope = Envelope(kind, b"", protocol=protocol)
    return write_properties(_properties(envelope, persistent=persistent))


def _properties(envelope: Envelope, *, persistent: bool) -> Properties:
    headers: dict[str, object] = dict(envelope.headers)
    if envelope.protocol is not None:
        headers[PROTOCOL_HEADER] = envelope.protocol
    return Properties(
        content_type="application/json",
        # Some clients parse a body before anybody can see its bytes, unless it has an encoding.
        content_encoding="utf-8" if SIGNATURE_HEADER in headers else None,
        headers=headers,
        delivery_mode=_PERSISTENT if persistent else _TRANSIENT,
        expiration=_expiration(envelope.expires),
        message_id=envelope.message_id,
        message_type=envelope.type,
    )


def to_envelope(message: Message) -> Envelope:
    properties = message.properties
    stated = properties.headers or {}
    protocol = stated.get(PROTOCOL_HEADER)
    # As nearly all are: nothing else is stated, and no other number that only looks like this one.
    is_plain = len(stated) == 1 and protocol == PROTOCOL_VERSION and type(protocol) is int
    if is_plain and properties.expiration is None:
        return Envelope(properties.message_type, message.body, properties.message_id)
    raw: dict[str, object] = dict(stated)
    raw.pop(PROTOCOL_HEADER, None)
    headers = {name: value for name, value in raw.items() if isinstance(value, str)}
    if DEATH_HEADER in headers:
        _tell_death(headers, raw)
    return Envelope(
        type=properties.message_type,
        body=message.body,
        message_id=properties.message_id,
        protocol=_protocol_of(protocol),
        headers=headers,
        expires=_expires(properties.expiration),
    )


def delivery_count_of(message: Message) -> int:
    headers = message.properties.headers
    return deliveries_before(headers) if headers else 0


def _tell_death(headers: dict[str, str], raw: dict[str, object]) -> None:
    """Let the headers tell of the last time that the broker gave up, not of the first."""
    queue = headers.get("x-first-death-queue", "?")
    if "x-death" in raw:
        deaths = deaths_elsewhere(raw)
        if not deaths:  # it was only held
            for name in [name for name in headers if name.startswith("x-first-death-")]:
                del headers[name]
            return
        headers[DEATH_HEADER], queue = str(deaths[0].get("reason")), str(deaths[0].get("queue"))
        headers[DEATH_QUEUE_HEADER] = queue
    reason = headers[DEATH_HEADER].replace("_", " ")
    headers.setdefault(ERROR_HEADER, f"the broker took it from queue {queue!r}: {reason}")


def _protocol_of(value: object) -> int | None:
    match value:
        case None:
            return None
        case int() if not isinstance(value, bool):
            return value
        case str() if _is_number(value):
            return int(value)
        case _:
            return UNKNOWN_PROTOCOL


def _expiration(expires: timedelta | None) -> str | None:
    return None if expires is None else str(round(expires / timedelta(milliseconds=1)))


def _expires(value: str | None) -> timedelta | None:
    return timedelta(milliseconds=int(value)) if value and _is_number(value) else None


def _is_number(text: str) -> bool:
    return text.isdecimal() and len(text) <= _MOST_DIGITS
