"""Two replays of one turn side by side."""

import os
from itertools import zip_longest

from durable_worker.worker.determinism.rehearsal import Asked, Turn

_SHOWN = 12
_WIDTH = 60
_BEFORE = 20


def differences(first: Turn, second: Turn) -> list[str]:
    """Lines of a table that shows where the turns differ; empty if they do not.

    What both asked for before that is left out, and so is what follows the first dozen.
    """
    seqs = sorted({*first.asked, *second.asked})
    differing = [seq for seq in seqs if not _same(first.asked.get(seq), second.asked.get(seq))]
    if not differing and first.end == second.end:
        return []
    rows = [("seq", "first time", "second time")]
    for seq in differing[:_SHOWN]:
        left, right = first.asked.get(seq), second.asked.get(seq)
        values = _apart(left.value if left else "", right.value if right else "")
        cells = _cells(left, values[0]), _cells(right, values[1])
        for number, pair in enumerate(zip_longest(*cells, fillvalue="")):
            rows.append(("" if number else str(seq), *pair))
    if len(differing) > _SHOWN:
        rows.append(("", f"and {len(differing) - _SHOWN} more", ""))
    rows.append(("end", *_apart(first.end, second.end)))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    reasons = [(each.end, each.reason) for each in (first, second) if each.reason]
    return lines + [f"{end}: {reason}" for end, reason in reasons if first.end != second.end]


def _same(left: Asked | None, right: Asked | None) -> bool:
    if left is None or right is None:
        return left is right
    return (left.what, left.value) == (right.what, right.value)


def _cells(asked: Asked | None, value: str) -> list[str]:
    if asked is None:
        return ["nothing"]
    return [part for part in (asked.what, value, _short(asked.place)) if part]


def _apart(left: str, right: str) -> tuple[str, str]:
    """Both cut to what fits, from shortly before where they differ."""
    pairs = zip(left, right, strict=False)
    shorter = min(len(left), len(right))
    same = next((at for at, (one, other) in enumerate(pairs) if one != other), shorter)
    return _cut(left, same), _cut(right, same)


def _cut(text: str, interesting: int) -> str:
    start = max(0, interesting - _BEFORE) if len(text) > _WIDTH else 0
    part = f"...{text[start:]}" if start else text
    return part if len(part) <= _WIDTH else f"{part[: _WIDTH - 3]}..."


def _short(place: str) -> str:
    here = os.getcwd() + os.sep
    return place.removeprefix(here)
