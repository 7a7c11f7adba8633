"""What a broker of ours can carry. The memory transport keeps to it too, so that what works in one
process works over a broker."""

from typing import Final

from msgspec import UnsetType

from durable_worker.errors import PayloadTooLargeError, UnsendableError
from durable_worker.protocol.base import Payload
from durable_worker.transports.base import Envelope

SHORT_STRING_BYTES: Final = 255
"""UTF-8 bytes of a name, a topic, a message id or a type in AMQP."""

_SURELY_SHORT: Final = SHORT_STRING_BYTES // 4
"""Characters, of which none takes more than four bytes."""


def check_names(*names: str) -> None:
    """Raises `UnsendableError` for a queue or an exchange that no broker can have."""
    for name in names:
        _check("queue or exchange name", name)


def check_message(
    target: str, envelope: Envelope, *, topic: str = "", max_bytes: int | None = None
) -> None:
    """Raises `UnsendableError` if the message cannot be addressed or labelled like this, and
    `PayloadTooLargeError` if its body has more than `max_bytes`."""
    message_id, kind = envelope.message_id or "", envelope.type or ""
    if max(len(target), len(topic), len(message_id), len(kind)) > _SURELY_SHORT:
        _check("queue or exchange name", target)
        _check("topic", topic)
        _check("message id", message_id)
        _check("message type", kind)
    size = len(envelope.body)
    if max_bytes is not None and size > max_bytes:
        raise PayloadTooLargeError(
            size=size, limit=max_bytes, queue=target, what=f"the {envelope.type or 'message'}"
        )


def check_payload(payload: Payload, what: str, *, max_bytes: int) -> None:
    """Raises `PayloadTooLargeError` for what no message could carry, before it is stored."""
    size = 0 if isinstance(payload, UnsetType) else len(bytes(payload))
    if size > max_bytes:
        raise PayloadTooLargeError(size=size, limit=max_bytes, what=what)


def _check(field: str, text: str) -> None:
    if len(text) <= _SURELY_SHORT:
        return
    size = len(text.encode())
    if size > SHORT_STRING_BYTES:
        raise UnsendableError(field, text, size=size, limit=SHORT_STRING_BYTES)
