"""What is measured: a target, the reading of it, and whether it is reached."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field


class UnavailableError(Exception):
    """A peer or a service cannot be had here; `str(error)` says why."""


class WrongResultError(Exception):
    """Something was lost, done twice or answered wrongly: the measurement counts for nothing."""


@dataclass(frozen=True, slots=True)
class Target:
    """One row. Without `at_least` and `at_most` it is told and not judged."""

    key: str
    what: str
    unit: str = "x"
    at_least: float | None = None
    at_most: float | None = None

    @property
    def reach(self) -> str:
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return "" if self.at_most is None else f"<= {self.at_most:g}"

    def is_reached(self, value: float) -> bool | None:
        if self.at_least is not None:
            return value >= self.at_least
        return None if self.at_most is None else value <= self.at_most


@dataclass(frozen=True, slots=True)
class Side:
    """The samples of one side of a comparison, in the unit of that side."""

    name: str
    unit: str
    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)


@dataclass(frozen=True, slots=True)
class Reading:
    """The median of `samples`. For a ratio these are the ratios pair by pair, and `sides` says what
    they were made of."""

    key: str
    samples: tuple[float, ...]
    sides: tuple[Side, ...] = ()
    note: str = ""

    @property
    def value(self) -> float:
        return statistics.median(self.samples)


@dataclass(frozen=True, slots=True)
class Row:
    """A target with its reading, or with the reason why there is none.

    `is_broken` tells a measurement that went wrong from one whose peer cannot be had.
    """

    target: Target
    reading: Reading | None = None
    reason: str = ""
    is_broken: bool = False

    @property
    def is_reached(self) -> bool | None:
        return None if self.reading is None else self.target.is_reached(self.reading.value)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Samples of two sides, taken in turn, so that a machine that drifts does so for both."""

    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)

    def ratios(self) -> tuple[float, ...]:
        return tuple(ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True))

    def reading(
        self, key: str, unit: str, names: Sequence[str] = ("ours", "theirs"), *, note: str = ""
    ) -> Reading:
        """The ratio of ours to theirs, whichever of the two is better."""
        return Reading(
            key,
            self.ratios(),
            (
                Side(names[0], unit, tuple(self.ours)),
                Side(names[1], unit, tuple(self.theirs)),
            ),
            note,
        )
