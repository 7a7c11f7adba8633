"""A mismatch between history and code, side by side."""

from collections.abc import Sequence
from pathlib import Path

from durable_worker.cli.page import Line, Text
from durable_worker.replay.diff import HEADER, Mismatch, rows_of, shortened

INDENT = 4


def diff_lines(mismatch: Mismatch) -> list[Line]:
    """As lines of their own, so that they can stand among the rows of another table."""
    rows = rows_of(mismatch.diff, seq=mismatch.seq, root=str(Path.cwd()))
    widths = [max(map(len, column)) for column in zip(HEADER, *rows, strict=True)]
    return [
        _line(HEADER, widths, "dim"),
        *(_line(row, widths, "red" if row[0] else "") for row in rows),
    ]


def shortened_place(location: str) -> str:
    return shortened(location, root=str(Path.cwd()))


def _line(row: Sequence[str], widths: Sequence[int], style: str) -> Line:
    padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
    return Line([Text("  ".join(padded).rstrip(), style)], indent=INDENT)
