"""A mismatch side by side, as text."""

from collections.abc import Sequence

import msgspec
from msgspec import Struct, UnsetType

from durable_worker.errors import DiffLine, NondeterminismError
from durable_worker.protocol.failure import Failure

_SHOWN = 5
"""So many lines before and after the mismatch."""

_GAP = "..."

Row = tuple[str, str, str, str, str]
"""Mark, seq, history, code, location."""

HEADER: Row = ("", "SEQ", "HISTORY", "CODE", "LINE")


class Mismatch(Struct, frozen=True):
    """The `details` of a failure with code `nondeterminism`."""

    seq: int
    recorded: str
    asked: str
    location: str
    diff: tuple[DiffLine, ...] = ()


def mismatch_told(error: NondeterminismError) -> Mismatch:
    return Mismatch(
        seq=error.seq,
        recorded=error.recorded,
        asked=error.asked,
        location=error.location,
        diff=error.near,
    )


def mismatch_in(failure: Failure | None) -> Mismatch | None:
    """What a failed run tells of a mismatch; None if it failed of something else."""
    if failure is None or failure.code != NondeterminismError.code:
        return None
    if isinstance(failure.details, UnsetType):
        return None
    try:
        return msgspec.json.decode(failure.details, type=Mismatch)
    except (msgspec.MsgspecError, UnicodeDecodeError):  # of another peer, in another shape
        return None


def rows_of(lines: Sequence[DiffLine], *, seq: int, root: str) -> list[Row]:
    """The lines around `seq`, the differing ones marked; paths below `root` are shortened."""
    shown = [each for each in lines if abs(each.seq - seq) <= _SHOWN]
    gap: list[Row] = [("", _GAP, "", "", "")]
    rows: list[Row] = [
        (
            ">" if each.differs else "",
            str(each.seq),
            each.history or "",
            each.code or "",
            shortened(each.location or "", root=root),
        )
        for each in shown
    ]
    if not shown:
        return rows
    before = gap if shown[0] is not lines[0] else []
    after = gap if shown[-1] is not lines[-1] else []
    return [*before, *rows, *after]


def side_by_side(error: NondeterminismError, *, root: str) -> str:
    rows = [HEADER, *rows_of(error.lines, seq=error.seq, root=root)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def shortened(location: str, *, root: str) -> str:
    return location.removeprefix(f"{root.rstrip('/')}/")
