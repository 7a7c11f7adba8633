"""What is shown, before it is known where: lines and tables of styled text.

On a terminal Rich draws it. In a pipe it is plain text, aligned and never cut; Rich is not even
imported there.
"""

import sys
from collections.abc import Sequence
from typing import IO

from msgspec import Struct


class Text(Struct, frozen=True):
    """A piece of text; `style` is one of Rich's, and only shows on a terminal."""

    text: str
    style: str = ""


Cell = Text | str


class Line(Struct, frozen=True):
    """One line, on its own outside the columns."""

    parts: Sequence[Cell]
    indent: int = 0


class Table(Struct, frozen=True):
    """Aligned columns, without header line if that is empty. A `Line` among the rows belongs to
    the row above it."""

    header: Sequence[str]
    rows: Sequence[Sequence[Cell] | Line]


Block = Line | Table


def show(blocks: Sequence[Block], stream: IO[str] | None = None) -> None:
    out = sys.stdout if stream is None else stream
    if out.isatty():
        _draw(blocks, out)
    else:
        print(plain_text(blocks), file=out)


def plain_text(blocks: Sequence[Block]) -> str:
    lines = [line for block in blocks for line in _lines(block)]
    return "\n".join("".join(_content(part) for part in line).rstrip() for line in lines)


def _draw(blocks: Sequence[Block], out: IO[str]) -> None:
    from rich.console import Console
    from rich.text import Text as RichText

    console = Console(file=out, highlight=False)
    for block in blocks:
        for line in _lines(block):
            styled = [
                (_content(each), each.style) if isinstance(each, Text) else _content(each)
                for each in line
            ]
            text = RichText.assemble(*styled)
            text.rstrip()
            console.print(text, soft_wrap=True)


def _lines(block: Block) -> list[list[Cell]]:
    match block:
        case Line(parts=parts, indent=indent):
            return [[" " * indent, *parts]]
        case Table(header=header, rows=rows):
            titles: list[Cell] = [Text(each, "dim") for each in header]
            all_rows = [titles, *rows] if titles else [*rows]
            cells = [row for row in all_rows if not isinstance(row, Line)]
            widths = [max(map(len, map(_content, column))) for column in zip(*cells, strict=True)]
            return [
                [" " * row.indent, *row.parts] if isinstance(row, Line) else _padded(row, widths)
                for row in all_rows
            ]


def _padded(row: Sequence[Cell], widths: Sequence[int]) -> list[Cell]:
    padded: list[Cell] = []
    for cell, width in zip(row, widths, strict=True):
        padded += [cell, " " * (width - len(_content(cell)) + 2)]
    return padded


def _content(cell: Cell) -> str:
    return printable(cell.text if isinstance(cell, Text) else cell)


_CONTROLS = dict.fromkeys(
    (*range(9), *range(11, 32), *range(127, 160)), "\N{REPLACEMENT CHARACTER}"
)


def printable(text: str) -> str:
    """Nothing in it moves the cursor, hides what was printed, or talks to the terminal: names and
    messages may have been written by anybody."""
    return text if text.isprintable() else text.translate(_CONTROLS)
