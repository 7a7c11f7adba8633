"""What all wire messages have in common."""

from collections.abc import Callable
from typing import Annotated

from msgspec import Meta, Raw, Struct, UnsetType

PROTOCOL_VERSION = 1

SIGNATURE_HEADER = "durable-signature"
TOKEN_HEADER = "durable-tenant-token"
UNVERIFIED_HEADER = "durable-unverified"
"""On a dead letter as a signing transport hands it on: why nobody may act on it. Never travels."""

TokenSource = str | Callable[[], str]
"""A tenant token, or what gives the current one whenever a message needs it."""


def token_headers(token: TokenSource | None) -> dict[str, str]:
    if token is None:
        return {}
    return {TOKEN_HEADER: token if isinstance(token, str) else token()}


Payload = Raw | UnsetType
"""A user's value: JSON that stays undecoded bytes. UNSET: the key is absent, which means null."""

MAX_INTEGER = 2**53 - 1
"""The largest integer that a peer whose only number is a double holds exactly."""

Name = Annotated[str, Meta(min_length=1)]
Integer = Annotated[int, Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]
Count = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]
Seq = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]
StepSeq = Integer
"""The seq of one step. A NestJS operator counts compensations from -1 downwards."""
Attempt = Annotated[int, Meta(ge=1, le=MAX_INTEGER)]
Millis = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]
"""A duration or an instant (since the epoch) in milliseconds."""


class Message(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of every wire struct: camelCase keys, unset optionals absent, unknown keys ignored."""
