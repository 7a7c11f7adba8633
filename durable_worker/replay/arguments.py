"""What a body passes to the context, checked and brought into one form."""

import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, cast

from msgspec import UnsetType

from durable_worker.errors import PayloadError, RegistrationError
from durable_worker.protocol.base import Payload
from durable_worker.protocol.payload import encode_payload
from durable_worker.replay.definitions import location_of
from durable_worker.replay.operations import Location

Timeout = timedelta | float | None
"""How long to wait, in seconds if a number; None: for ever."""


def checked_name(name: object, noun: str) -> str:
    """Raises `RegistrationError` for what cannot be a name on the wire."""
    try:
        if isinstance(name, str) and name and name.encode():
            return name
    except UnicodeEncodeError:
        pass
    raise RegistrationError(f"{name!r} cannot be the name of a {noun}: it must be non-empty text")


def seconds(duration: timedelta | float) -> float:
    return duration.total_seconds() if isinstance(duration, timedelta) else duration


def limit_of(timeout: Timeout) -> float | None:
    return None if timeout is None else seconds(timeout)


def positive_limit(timeout: Timeout, what: str) -> float | None:
    """Seconds. Raises `RegistrationError` for a timeout within which nothing could happen."""
    limit = limit_of(timeout)
    if limit is not None and not limit > 0:
        raise RegistrationError(f"the timeout of {what} must be positive, not {limit:g} s")
    return limit


def match_json(match: Mapping[str, Any] | None, event: str) -> bytes:
    """Compact JSON of what an event's payload must hold. Raises `PayloadError`."""
    encoded = encode_payload(dict(match or {}), what=f"the match of event {event!r}")
    return b"{}" if isinstance(encoded, UnsetType) else bytes(encoded)


def not_registered(noun: str, function: Callable[..., Any]) -> str:
    return (
        f"{getattr(function, '__qualname__', function)!r} ({location_of(function)}) is not "
        f"registered as a {noun} on this worker; decorate it with @worker.{noun}(...), or pass the "
        f"name of a {noun} that another worker serves"
    )


def caller() -> Location:
    """The line that called the function that asks."""
    frame = sys._getframe(2)  # pyright: ignore[reportPrivateUsage]
    return (frame.f_code, frame.f_lineno)


def checked_attributes(attributes: Mapping[str, object]) -> Payload:
    """Raises `PayloadError` for what no run could be found by."""
    what = "the search attributes"
    for key, value in attributes.items():
        items = cast("list[object]", value) if isinstance(value, list) else [value]
        for item in items:
            if item is not None and not isinstance(item, (str, int, float)):
                raise PayloadError(
                    f"{what} under {key!r}",
                    f"runs are found by text, numbers, booleans, and lists of them, not by "
                    f"{type(item).__name__}",
                )
    return encode_payload(dict(attributes), what=what)
