"""What happened, in order: the memory of a simulation."""

import hashlib
from collections.abc import Sequence

from msgspec import Struct


class Line(Struct, frozen=True):
    at: float
    who: str
    what: str
    details: tuple[object, ...] = ()

    def __str__(self) -> str:
        told = " ".join(str(each) for each in self.details)
        return f"{self.at:11.4f}  {self.who:<12} {self.what}{' ' if told else ''}{told}"


class Trace:
    """Times are virtual seconds since the beginning."""

    __slots__ = ("_lines", "is_kept")

    def __init__(self, *, is_kept: bool) -> None:
        self.is_kept = is_kept
        self._lines: list[tuple[float, str, str, tuple[object, ...]]] = []

    def note(self, at: float, who: str, what: str, *details: object) -> None:
        if self.is_kept:
            self._lines.append((at, who, what, details))

    @property
    def lines(self) -> Sequence[Line]:
        return [Line(*each) for each in self._lines]

    def digest(self) -> str:
        """Equal for equal traces, in whichever process they were made."""
        found = hashlib.blake2b(digest_size=16)
        for at, who, what, details in self._lines:
            found.update(f"{at!r} {who} {what} {details}\n".encode("utf-8", "replace"))
        return found.hexdigest()


def around(lines: Sequence[Line], *, most: int = 120) -> list[Line]:
    """What a reader gets to see: the last lines, as many as fit."""
    left_out = len(lines) - most
    if left_out <= 0:
        return list(lines)
    return [Line(0.0, "", f"({left_out} lines are left out)"), *lines[-most:]]
