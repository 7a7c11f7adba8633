"""The envelope that a payload may travel in (protocol/README.md, "Payload envelope")."""

import re

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from durable_worker.protocol.base import Count, Payload

KEY = "$durable"
MARK = b'"$durable"'
"""A message without these bytes holds no envelope."""

VERSION = 1

Parameters = dict[str, str | int]
"""What a stage tells whoever undoes it."""

Stages = list[tuple[str, Parameters]]

_starts_like_one = re.compile(rb'\s*\{\s*"\$durable"\s*:').match


class BlobReference(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the sealed bytes are: `size` of them, under `key` of a store that both sides know."""

    key: str
    size: Count
    sha256: str


class PayloadEnvelope(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """Either a value (`context`, `value`), or sealed bytes (`salt`, `codec`, `data` or `ref`)."""

    v: int
    context: Payload = UNSET
    value: Payload = UNSET
    salt: str | None = None
    codec: list[dict[str, Parameters]] | None = None
    data: str | None = None
    ref: BlobReference | None = None

    def __post_init__(self) -> None:
        has_value = not (isinstance(self.context, UnsetType) and isinstance(self.value, UnsetType))
        sources = (self.data is not None) + (self.ref is not None)
        if sources + has_value > 1:
            raise ValueError("it holds a value, `data` or a `ref`, and only one of them")
        if has_value and (self.codec is not None or self.salt is not None):
            raise ValueError("a value has no `codec` and no `salt`")
        if self.data is not None and not self.codec:
            raise ValueError("`data` needs the `codec` that made it")
        if (self.codec is None) != (self.salt is None) or self.codec == []:
            raise ValueError("`codec` and `salt` go together")
        if self.codec is not None and (not sources or any(len(each) != 1 for each in self.codec)):
            raise ValueError("a `codec` is a list of objects with one key, and made something")
        if not isinstance(self.context, UnsetType) and bytes(self.context).lstrip()[:1] != b"{":
            raise ValueError("a `context` is an object")

    @property
    def is_sealed(self) -> bool:
        return self.data is not None or self.ref is not None

    @property
    def stages(self) -> Stages:
        return [stage for each in self.codec or () for stage in each.items()]


class Opened(Struct, frozen=True):
    """A payload as its user knows it, and the context (a JSON object) that travelled with it."""

    value: Payload
    context: Raw | None = None


class EnvelopeError(ValueError):
    """Something looks like an envelope and is none."""


class EnvelopeVersionError(EnvelopeError):
    """An envelope of another version than this one."""


class _Versioned(Struct):
    v: int


_outer: msgspec.json.Decoder[dict[str, Raw]] = msgspec.json.Decoder(dict[str, Raw])
_versioned = msgspec.json.Decoder(_Versioned)
_inner: msgspec.json.Decoder[PayloadEnvelope] = msgspec.json.Decoder(PayloadEnvelope)
_encoder = msgspec.json.Encoder()


def may_be_enveloped(payload: Payload) -> bool:
    """Cheap: False for nearly all that is not in an envelope."""
    return not isinstance(payload, UnsetType) and _starts_like_one(payload) is not None


def is_null(payload: Payload) -> bool:
    return isinstance(payload, UnsetType) or bytes(payload) == b"null"


def read_envelope(payload: Payload) -> PayloadEnvelope | None:
    """None for a payload without envelope. Raises `EnvelopeError` for one that is damaged."""
    if isinstance(payload, UnsetType) or _starts_like_one(payload) is None:
        return None
    try:
        outer = _outer.decode(payload)
        if outer.keys() != {KEY}:
            return None
        # First, since nothing is known of the keys of another version.
        version = _versioned.decode(outer[KEY]).v
        if version != VERSION:
            raise EnvelopeVersionError(f"of version {version}, this process knows {VERSION}")
        return _inner.decode(outer[KEY])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise EnvelopeError(str(error)) from error


def write_envelope(envelope: PayloadEnvelope) -> Raw:
    return Raw(_encoder.encode({KEY: envelope}))


def wrapped(payload: Payload, context: Raw | None = None, *, always: bool = False) -> Payload:
    """The payload as it is, or in an envelope: with a context, or where it looks like one."""
    if context is None and not always and not may_be_enveloped(payload):
        return payload
    # By hand, since one context is wrapped around each of many inputs.
    parts = [b'{"$durable":{"v":1']
    if context is not None:
        parts += [b',"context":', bytes(context)]
    if not isinstance(payload, UnsetType):
        parts += [b',"value":', bytes(payload)]
    return Raw(b"".join([*parts, b"}}"]))


def described(payload: Payload) -> str | None:
    """For people: how a payload is sealed; None if it is not."""
    try:
        envelope = read_envelope(payload)
    except EnvelopeError as error:
        return f"a damaged envelope ({error})"
    if envelope is None or not envelope.is_sealed:
        return None
    by = [
        f"{name}, key {parameters['key']}" if "key" in parameters else name
        for name, parameters in envelope.stages
    ]
    where = [f"{envelope.ref.size:,} bytes as a blob"] if envelope.ref is not None else []
    return f"sealed ({'; '.join([*by, *where])})"
