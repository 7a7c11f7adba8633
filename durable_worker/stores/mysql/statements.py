"""Statements as bytes, with their values in them, and in packets that the server takes.

Everything is bytes: sessions speak the character set `binary`, in which no byte is part of another
character, and in which only a backslash and a quote mean something inside of quotes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from durable_worker.errors import PayloadError
from durable_worker.stores.queries import load_statements

BYTES_AT_A_TIME = 1024 * 1024
"""Of one packet, unless a single row is larger."""

SPARE_BYTES = 1024
"""Of what the server takes, for what the protocol adds."""


@dataclass(frozen=True, slots=True)
class Expression:
    """SQL in place of a value."""

    sql: bytes


Value = None | int | str | bytes | Expression | Sequence[int | str]

Row = Sequence[Value]


def loaded(*parts: str) -> dict[str, bytes]:
    return {
        name: statement.encode()
        for part in parts
        for name, statement in load_statements("mysql", part).items()
    }


def literal(value: Value) -> bytes:
    """Raises `UnicodeEncodeError` for what is no text."""
    if value is None:
        return b"NULL"
    if isinstance(value, int):
        return b"%d" % value
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        if b"\\" in value:
            value = value.replace(b"\\", b"\\\\")
        if b"'" in value:
            value = value.replace(b"'", b"\\'")
        return b"'%b'" % value
    if isinstance(value, Expression):
        return value.sql
    return _listed(value)


def _listed(values: Sequence[Value]) -> bytes:
    return b"(%b)" % b", ".join(map(literal, values))


def filled(statement: bytes, *values: Value) -> bytes:
    """`statement` with a value in place of each question mark; several are in parentheses."""
    first, *others = statement.split(b"?")
    assert len(others) == len(values)
    pieces = [first]
    for value, piece in zip(values, others, strict=True):
        pieces += (literal(value), piece)
    return b"".join(pieces)


def inserts(statement: bytes, rows: Iterable[Row]) -> Iterator[bytes]:
    """`statement` with rows in place of its question mark, as often as their size asks for."""
    before, _, after = statement.partition(b"?")
    kept: list[bytes] = []
    size = 0
    for row in map(_listed, rows):
        if kept and size + len(row) > BYTES_AT_A_TIME:
            yield b"%b%b%b" % (before, b", ".join(kept), after)
            kept, size = [], 0
        kept.append(row)
        size += len(row) + 2
    if kept:
        yield b"%b%b%b" % (before, b", ".join(kept), after)


def packets(statements: Iterable[bytes], *, limit: int, database: str) -> list[bytes]:
    """Several statements in each; `limit` is what the server takes. Raises `PayloadError`."""
    found: list[bytes] = []
    kept: list[bytes] = []
    size = 0
    wanted = min(BYTES_AT_A_TIME, limit - SPARE_BYTES)
    for each in statements:
        if len(each) > limit - SPARE_BYTES:
            raise _too_large(len(each), limit=limit, database=database)
        if kept and size + len(each) > wanted:
            found.append(b";".join(kept))
            kept, size = [], 0
        kept.append(each)
        size += len(each) + 1
    if kept:
        found.append(b";".join(kept))
    return found


def _too_large(size: int, *, limit: int, database: str) -> PayloadError:
    return PayloadError(
        f"something that {database} cannot store",
        f"a row has {size:,} bytes, max_allowed_packet of the server is {limit:,}. Keep large data "
        f"elsewhere and pass a reference, as ClaimCheck in durable_worker.payloads does, or raise "
        f"it on the server",
    )
