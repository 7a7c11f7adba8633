"""Everything that a seed decides: the order of things, how long they take, and which faults hit.

Each kind of fault has a stream of its own, so that leaving one fault out does not move the others:
that is what lets a failing seed be reduced to the faults that it needs.
"""

from collections.abc import Callable, Collection, Mapping
from enum import StrEnum
from random import Random
from uuid import UUID

from msgspec import Struct


class FaultKind(StrEnum):
    """What can be injected, and at which kind of point."""

    CRASH = "crash"
    """A process ends between two callbacks; its `finally` blocks reach nobody."""
    STOP = "stop"
    """A process is told to stop, as by SIGTERM, and comes back later."""
    PAUSE = "pause"
    """A process stands still for a while: SIGSTOP, a long garbage collection."""
    CLOCK = "clock"
    """The wall clock of a process is set, up to an hour either way."""
    CUT = "cut"
    """The broker connection of a process breaks; both sides see it."""
    SILENCE = "silence"
    """Packets of a broker connection are dropped; each side notices on its own, later."""
    BROKER_RESTART = "broker-restart"
    """Every connection breaks; queues remain."""
    DELAY = "delay"
    """A message takes up to seconds."""
    DUPLICATE = "duplicate"
    """A work queue holds a message twice."""
    REORDER = "reorder"
    """A work queue delivers another message than its first."""
    BROADCAST_LOST = "broadcast-lost"
    STORE_REFUSED = "store-refused"
    """A call of the database fails before it has had an effect."""
    STORE_TORN = "store-torn"
    """A transaction is committed, but its caller is told that it failed."""
    STORE_SLOW = "store-slow"
    """A call of the database takes up to seconds."""
    LEASE_EXPIRED = "lease-expired"
    """The database takes the lease for expired while its holder lives."""


ALL_FAULTS = frozenset(FaultKind)

EVERY: Mapping[FaultKind, int] = {
    FaultKind.CRASH: 1_800,
    FaultKind.STOP: 8_000,
    FaultKind.PAUSE: 4_000,
    FaultKind.CLOCK: 8_000,
    FaultKind.CUT: 250,
    FaultKind.SILENCE: 400,
    FaultKind.BROKER_RESTART: 1_200,
    FaultKind.DELAY: 60,
    FaultKind.DUPLICATE: 30,
    FaultKind.REORDER: 12,
    FaultKind.BROADCAST_LOST: 12,
    FaultKind.STORE_REFUSED: 60,
    FaultKind.STORE_TORN: 40,
    FaultKind.STORE_SLOW: 120,
    FaultKind.LEASE_EXPIRED: 20,
}
"""One in so many points is hit: callbacks, messages, calls of the database, by the kind."""

_NUMBERS = {kind: number for number, kind in enumerate(FaultKind, start=1)}


class Fault(Struct, frozen=True, order=True):
    """The `number`-th point (from 1) of its kind was hit."""

    kind: FaultKind
    number: int

    def __str__(self) -> str:
        return f"{self.kind}#{self.number}"


class Strikes:
    """Says point by point whether a fault hits. `only` leaves out all others: for a repetition."""

    __slots__ = ("_due", "_gaps", "_now", "_points", "_seed", "hits", "is_over", "only")

    def __init__(
        self,
        seed: int,
        *,
        now: Callable[[], float],
        kinds: Collection[FaultKind] = ALL_FAULTS,
        only: Collection[Fault] | None = None,
    ) -> None:
        self._seed = seed
        self.only = None if only is None else frozenset(only)
        self._now = now
        self.hits: list[tuple[Fault, float]] = []
        self.is_over = False
        calm = Random(seed * 1_000_003)
        # Not every seed sees everything: the faults of one kind hide those of another.
        chosen = [kind for kind in FaultKind if calm.random() < 0.6 and kind in kinds]
        intensity = calm.choice((0.5, 1.0, 1.0, 2.0))
        self._gaps = {
            kind: (Random(seed * 1_000_003 + _NUMBERS[kind]), EVERY[kind] / intensity)
            for kind in chosen
        }
        self._points = dict.fromkeys(FaultKind, 0)
        self._due = {kind: self._next_gap(kind) for kind in self._gaps}

    def _next_gap(self, kind: FaultKind) -> int:
        random, mean = self._gaps[kind]
        return 1 + int(random.expovariate(1 / mean))

    def hit(self, kind: FaultKind) -> Random | None:
        """Pass one point of this kind; if it is hit: what decides the rest about that fault."""
        due = self._due.get(kind)
        if due is None:
            return None
        number = self._points[kind] + 1
        self._points[kind] = number
        if number < due:
            return None
        self._due[kind] = number + self._next_gap(kind)
        return self._strike(kind, number)

    def passed(self, kind: FaultKind, points: int) -> Random | None:
        """As `hit`, for many points at once; at most the first of them is hit."""
        due = self._due.get(kind)
        if due is None:
            return None
        number = self._points[kind] + points
        self._points[kind] = number
        if number < due:
            return None
        self._due[kind] = number + self._next_gap(kind)
        return self._strike(kind, due)

    def until_next(self, kind: FaultKind) -> int:
        """How many points may pass before `passed` has to be asked again."""
        due = self._due.get(kind)
        return 1_000_000_000 if due is None else max(1, due - self._points[kind])

    def _strike(self, kind: FaultKind, number: int) -> Random | None:
        fault = Fault(kind, number)
        if self.is_over or (self.only is not None and fault not in self.only):
            return None
        self.hits.append((fault, self._now()))
        return Random((self._seed * 64 + _NUMBERS[kind]) * 1_000_003 + number)


class SeededChance:
    """Ids and jitter of one process."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def new_id(self) -> UUID:
        return UUID(int=self._random.getrandbits(128), version=4)

    def fraction(self) -> float:
        return self._random.random()
