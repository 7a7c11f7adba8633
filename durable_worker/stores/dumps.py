"""A store as JSON Lines: a header, one line for each row, and a line that counts them."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Protocol, cast

import msgspec
from msgspec import Struct

from durable_worker.errors import PayloadError
from durable_worker.stores.base import Store
from durable_worker.stores.records import Checkpoint, DeadLetter, OutboxRow, Run, SignalRecord

FORMAT = "durable-worker-export"
FORMAT_VERSION = 1


class Submitted(Struct, frozen=True):
    """An input that nobody has taken yet."""

    body: bytes


AnyRow = Run | Checkpoint | SignalRecord | OutboxRow | Submitted | DeadLetter
"""What a store holds but for its lease. A run comes before its checkpoints."""


class DumpableStore(Store, Protocol):
    """A store that can tell all that is in it."""

    def dump(self) -> AsyncGenerator[Sequence[AnyRow]]:
        """Everything but the lease as it is at one moment, a few rows at a time; each run before
        its checkpoints. Close it (`aclosing`)."""
        ...


class Header(Struct, frozen=True, kw_only=True):
    format: str
    version: int
    release: str


class Count(Struct, frozen=True, kw_only=True):
    """How many rows there were: the last line, so that a file that was cut off is noticed."""

    rows: int


class _Line(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of these. `encoded` is a line in base64 whose payloads have line breaks in them, or are
    not UTF-8: they come back byte for byte."""

    header: Header | None = None
    run: Run | None = None
    checkpoint: Checkpoint | None = None
    signal: SignalRecord | None = None
    outbox: OutboxRow | None = None
    inbox: Submitted | None = None
    dead_letter: DeadLetter | None = None
    encoded: bytes | None = None
    end: Count | None = None


_NAMES: dict[type[Any], str] = {
    Run: "run",
    Checkpoint: "checkpoint",
    SignalRecord: "signal",
    OutboxRow: "outbox",
    Submitted: "inbox",
    DeadLetter: "dead_letter",
}
_encoder = msgspec.json.Encoder()
_lines = msgspec.json.Decoder(_Line)


def header_line(release: str) -> bytes:
    header = Header(format=FORMAT, version=FORMAT_VERSION, release=release)
    return _encoder.encode(_Line(header=header)) + b"\n"


def end_line(rows: int) -> bytes:
    return _encoder.encode(_Line(end=Count(rows=rows))) + b"\n"


def line_of(row: AnyRow) -> bytes:
    held = cast("Any", {_NAMES[type(row)]: row})
    line = _encoder.encode(_Line(**held))
    if not _is_one_line(line):
        line = _encoder.encode(_Line(encoded=line))
    return line + b"\n"


def _is_one_line(line: bytes) -> bool:
    if b"\n" in line or b"\r" in line:
        return False
    try:
        return line.isascii() or bool(line.decode())
    except UnicodeDecodeError:
        return False


class Reader:
    """Rows out of the lines of a dump, in their order. `rows` is how many it has given."""

    def __init__(self) -> None:
        self.rows = 0
        self._number = 0
        self._has_ended = False

    def read(self, line: bytes) -> AnyRow | None:
        """None for the first and the last line. Raises `PayloadError`, with the line's number."""
        self._number += 1
        if self._has_ended:
            raise self._refusal("there is something after the line that ends the export")
        try:
            found = _lines.decode(line)
            if found.encoded is not None:
                found = _lines.decode(found.encoded)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise self._refusal(f"it is not a line of an export ({error})") from None
        if self._number == 1:
            self._check(found.header)
            return None
        if found.end is not None:
            self._end(found.end)
            return None
        row = _row_of(found)
        if row is None:
            raise self._refusal("it holds no row that this release knows")
        self.rows += 1
        return row

    def finish(self) -> None:
        """Raises `PayloadError` if the lines end too early."""
        if not self._has_ended:
            self._number += 1
            raise self._refusal("the export ends here, before its last line: it was cut off")

    def _check(self, header: Header | None) -> None:
        if header is None or header.format != FORMAT:
            raise self._refusal("it does not begin like an export of durable-worker")
        if header.version > FORMAT_VERSION:
            raise self._refusal(
                f"the export has format version {header.version} (of durable-worker "
                f"{header.release}), this release knows version {FORMAT_VERSION}: upgrade "
                f"durable-worker"
            )

    def _end(self, count: Count) -> None:
        self._has_ended = True
        if count.rows != self.rows:
            raise self._refusal(f"it counts {count.rows} rows, but {self.rows} came before")

    def _refusal(self, reason: str) -> PayloadError:
        return PayloadError(f"line {self._number} of the export", reason)


def _row_of(line: _Line) -> AnyRow | None:
    return (
        line.run or line.checkpoint or line.signal or line.outbox or line.inbox or line.dead_letter
    )
