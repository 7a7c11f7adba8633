"""Tables of AMQP headers, read so that one value that cannot be decoded costs that value only."""

import struct
from contextlib import suppress
from typing import Any, Final

from pamqp import decode, encode
from pamqp.exceptions import PAMQPException

UNREADABLE: Final = (
    *(PAMQPException, struct.error, IndexError),
    *(ValueError, ArithmeticError, RecursionError, OSError),
)
"""What is raised over values that cannot be decoded."""

_FIXED = dict(zip(b"tbBsuIilLfdDTV\0", (1, 1, 1, 2, 2, 4, 4, 8, 8, 4, 8, 5, 8, 0, 0), strict=True))
"""Bytes of a value in a table, by the letter of its type; all others state their length first."""

_TEXT: Final = ord("S")

Table = dict[str, object]


def short_text(data: bytes, at: int) -> tuple[str, int]:
    """The text at that place, and the place behind it. Raises `IndexError` if it is cut off."""
    end = at + 1 + data[at]
    if end > len(data):
        raise IndexError(at)
    return mended_text(data[at + 1 : end]), end


def mended_text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        # Not longer than it was: it must fit the same place when the message is sent on.
        return data.decode("utf-8", "replace").replace("\N{REPLACEMENT CHARACTER}", "?")


def read_table(data: bytes) -> Table:
    """`data`: the entries, without the length that stands before them. Raises nothing."""
    table: Table = {}
    at, end = 0, len(data)
    # What is cut off ends it: nobody knows where the next entry would begin.
    with suppress(IndexError, struct.error):
        while at < end:
            name, at = short_text(data, at)
            kind = data[at]
            fixed = _FIXED.get(kind)
            size = 4 + int.from_bytes(data[at + 1 : at + 5]) if fixed is None else fixed
            with suppress(*UNREADABLE):
                table[name] = (
                    data[at + 5 : at + 1 + size].decode()
                    if kind == _TEXT and at + 1 + size <= end
                    else decode.embedded_value(data[at : at + 1 + size])[1]
                )
            at += 1 + size
    return table


def write_table(table: dict[str, Any]) -> bytes:
    """Raises `TypeError`, `ValueError` for what AMQP has no place for."""
    return encode.field_table(table)
