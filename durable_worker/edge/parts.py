"""Failures and step events: what operators act on stays in clear, what users wrote is sealed."""

import re
from collections.abc import Sequence
from typing import TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, structs

from durable_worker.edge.errors import PayloadTamperedError
from durable_worker.edge.plain import Codec, envelope_of
from durable_worker.protocol.base import Payload
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.payload_envelope import may_be_enveloped, wrapped
from durable_worker.protocol.results import StepEvent

SEALED_REASON = "the reason is sealed; whoever has the codec and its keys can read it"
SEALED_LINE = "sealed"

_RESERVED = "durable:"
_MARKERS = ("now#", "patch:")
_is_bare = re.compile(rb"-?[0-9]+|true|false|null").fullmatch

T = TypeVar("T", bound=Struct)


class _Reason(Struct, frozen=True, omit_defaults=True):
    message: str
    stack: str | None = None
    details: Payload = UNSET


class _Line(Struct, frozen=True, omit_defaults=True):
    message: str
    data: Payload = UNSET


_encoder = msgspec.json.Encoder()
_reasons = msgspec.json.Decoder(_Reason)
_lines = msgspec.json.Decoder(_Line)


def is_internal(name: str | None, output: Payload, error: Failure | None = None) -> bool:
    """Whether a recorded step holds no user's value, but a time or a marker.

    Users may have such names, too: then what is more than a number or a marker counts as theirs.
    """
    if name is None or error is not None or may_be_enveloped(output):
        return False
    return name.startswith(_RESERVED) or (
        name.startswith(_MARKERS)
        and (isinstance(output, UnsetType) or _is_bare(output) is not None)
    )


async def seal_failure(codec: Codec, failure: Failure, *, salt: str) -> Failure:
    """`code` and `retryable` stay in clear; the message too, if the codec does not protect."""
    reason = _Reason(failure.message, failure.stack, failure.details)
    sealed = await _sealed(codec, reason, failure.details, salt)
    if sealed is None:
        return failure
    return structs.replace(
        failure,
        message=SEALED_REASON if codec.protects else failure.message,
        stack=None,
        details=sealed,
    )


async def open_failure(codec: Codec, failure: Failure, *, what: str) -> Failure:
    """One that is not sealed stays as it is: operators make failures, too."""
    if envelope_of(failure.details, what) is None:
        return failure
    reason = await _opened(codec, failure.details, _reasons, what)
    return structs.replace(
        failure, message=reason.message, stack=reason.stack, details=reason.details
    )


async def seal_events(
    codec: Codec, events: Sequence[StepEvent] | None, *, salt: str
) -> list[StepEvent] | None:
    return None if events is None else [await seal_event(codec, each, salt=salt) for each in events]


async def open_events(
    codec: Codec, events: Sequence[StepEvent] | None, *, what: str
) -> list[StepEvent] | None:
    return None if events is None else [await open_event(codec, each, what=what) for each in events]


async def seal_event(codec: Codec, event: StepEvent, *, salt: str) -> StepEvent:
    """Names, phases and outcomes stay in clear."""
    sealed = await _sealed(codec, _Line(event.message, event.data), event.data, salt)
    if sealed is None:
        return event
    return structs.replace(
        event, message=SEALED_LINE if codec.protects else event.message, data=sealed
    )


async def open_event(codec: Codec, event: StepEvent, *, what: str) -> StepEvent:
    if envelope_of(event.data, what) is None:
        return event
    line = await _opened(codec, event.data, _lines, what)
    return structs.replace(event, message=line.message, data=line.data)


async def _sealed(codec: Codec, part: Struct, data: Payload, salt: str) -> Payload | None:
    encoded = Raw(_encoder.encode(part))
    sealed = await codec.seal(encoded, salt=salt)
    if may_be_enveloped(sealed):
        return sealed
    # What is in an envelope here holds the text as well, so data that looks like one needs its own.
    return wrapped(encoded, always=True) if may_be_enveloped(data) else None


async def _opened(codec: Codec, data: Payload, decoder: msgspec.json.Decoder[T], what: str) -> T:
    opened = await codec.open(data, what=what)
    try:
        return decoder.decode(opened.value if isinstance(opened.value, Raw) else b"null")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        damaged = PayloadTamperedError(f"it does not hold what belongs there, {error}")
        damaged.what = what
        raise damaged from error
