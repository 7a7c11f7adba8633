"""The context that a run is started with."""

import re
from collections.abc import Callable, Mapping

from msgspec import Raw

from durable_worker.errors import PayloadError
from durable_worker.protocol.payload import encode_payload, plain_json

Context = Mapping[str, object]
ContextSource = Context | Callable[[], Context | None]
"""A context, or what tells the one of the moment."""

LONGEST_CONTEXT = 8 * 1024
"""Bytes of JSON; it travels with every step."""

_WHAT = "the context of a run"

_is_traceparent = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
).fullmatch


def encoded_context(source: ContextSource | None, stated: Context | None) -> Raw | None:
    """Both as one JSON object, where what is `stated` counts more; None if there is nothing.

    Raises `PayloadError` for what is no JSON object of at most 8 KiB, or a `traceparent` that is
    none.
    """
    found = source() if callable(source) else source
    merged = {**_object(found), **_object(stated)}
    if not merged:
        return None
    encoded = encode_payload(merged, what=_WHAT)
    assert isinstance(encoded, Raw)
    if len(encoded) > LONGEST_CONTEXT:
        raise PayloadError(
            _WHAT,
            f"it has {len(encoded):,} bytes, at most {LONGEST_CONTEXT:,} travel with every step",
        )
    values: dict[str, object] = plain_json(encoded)
    traceparent = values.get("traceparent")
    if traceparent is not None and not (
        isinstance(traceparent, str) and _is_traceparent(traceparent)
    ):
        raise PayloadError(_WHAT, f"{traceparent!r} is no W3C traceparent")
    return encoded


def _object(context: object) -> Mapping[str, object]:
    if context is None:
        return {}
    if not isinstance(context, Mapping):
        raise PayloadError(_WHAT, f"it has to be a mapping, not {type(context).__name__!r}")
    for key in context:  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(key, str):
            raise PayloadError(_WHAT, f"its keys have to be text, {key!r} is not")
    return context  # pyright: ignore[reportUnknownVariableType]
