"""What all wire messages have in common."""

from typing import Annotated

from msgspec import Meta, Raw, Struct, UnsetType

PROTOCOL_VERSION = 1

Payload = Raw | UnsetType
"""A user's value: JSON that stays undecoded bytes. UNSET: the key is absent, which means null."""

Name = Annotated[str, Meta(min_length=1)]
Seq = Annotated[int, Meta(ge=0)]
Attempt = Annotated[int, Meta(ge=1)]
Millis = Annotated[int, Meta(ge=0)]
"""A duration or an instant (since the epoch) in milliseconds."""


class Message(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of every wire struct: camelCase keys, unset optionals absent, unknown keys ignored."""
