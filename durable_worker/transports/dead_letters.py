"""A message on its way to the dead queue: as it came, with the reason, never too large for it.

A broker closes the whole connection over a header frame that is larger than it allows. A message
that could not be buried would come again for ever.
"""

from typing import Final

from msgspec.structs import replace

from durable_worker.transports.base import ERROR_HEADER, Envelope

LONGEST_REASON: Final = 1_000
"""Characters of a reason that travel with the message."""

MOST_HEADER_BYTES: Final = 64 * 1024
"""Of names and values of text headers: half of what RabbitMQ takes, room for what it adds."""


def dead_letter(envelope: Envelope, reason: str, /, **headers: str) -> Envelope:
    """The message with `reason` in its headers. The largest headers are left out if need be."""
    kept = _kept(envelope.headers)
    dropped = len(envelope.headers) - len(kept)
    told = clipped(reason) + (f" ({dropped} headers were too large to keep)" if dropped else "")
    return replace(envelope, headers={**kept, **headers, ERROR_HEADER: told}, expires=None)


def clipped(reason: str) -> str:
    """A sentence of a length that one can read, log and send."""
    if len(reason) <= LONGEST_REASON:
        return reason
    return f"{reason[:LONGEST_REASON]}... ({len(reason):,} characters)"


def _kept(headers: dict[str, str]) -> dict[str, str]:
    sizes = {name: len(name.encode()) + len(value.encode()) for name, value in headers.items()}
    total = sum(sizes.values())
    kept = dict(headers)
    for name in sorted(sizes, key=lambda each: sizes[each], reverse=True):
        if total <= MOST_HEADER_BYTES:
            break
        total -= sizes[name]
        del kept[name]
    return kept
