"""JSON on the command line: what comes in, and what goes out."""

import json
import sys
from collections.abc import Sequence

import msgspec
from msgspec import Raw

from durable_worker.errors import UsageError

_CONTEXT = 20


def json_argument(option: str, text: str | None) -> Raw | None:
    """The value as it was written, checked; None if there is none.

    Raises `UsageError` that says where it is wrong.
    """
    if text is None:
        return None
    try:
        encoded = text.encode()
        msgspec.json.decode(encoded)
    except UnicodeEncodeError:
        raise UsageError(f"{option} is not UTF-8 text.") from None
    except (msgspec.MsgspecError, RecursionError) as error:
        raise UsageError(f"{option} is not JSON: {_position(text) or error}.") from None
    return Raw(encoded)


def text_pairs(option: str, pairs: Sequence[str]) -> dict[str, str] | None:
    """`KEY=VALUE` each; None if there is none. Raises `UsageError`."""
    found: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise UsageError(f"{option} reads KEY=VALUE, not {pair!r}.")
        found[key] = value
    return found or None


def value_pairs(option: str, pairs: Sequence[str]) -> dict[str, object]:
    """`KEY=VALUE` each; a value that is no JSON is text. Raises `UsageError`."""
    found: dict[str, object] = {}
    for key, text in (text_pairs(option, pairs) or {}).items():
        try:
            found[key] = msgspec.json.decode(text.encode())
        except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
            found[key] = text
    return found


def _position(text: str) -> str | None:
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        reason = f"{error.msg[:1].lower()}{error.msg[1:]} at {place}"
        if error.pos >= len(text):
            return f"{reason}, where it ends"
        return f"{reason}: ...{text[max(0, error.pos - _CONTEXT) : error.pos + 1]!r}"
    except (RecursionError, ValueError):
        pass  # nested too deeply, or an integer of more than 4,300 digits
    return None


def print_json(value: object) -> None:
    """One document and a newline on standard output, indented for a person."""
    encoded = msgspec.json.encode(value)
    if sys.stdout.isatty():
        encoded = msgspec.json.format(encoded, indent=2)
    sys.stdout.buffer.write(encoded + b"\n")
