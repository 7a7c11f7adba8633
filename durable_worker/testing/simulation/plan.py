"""What happens in a world, and what it has shown."""

from msgspec import Raw, Struct

from durable_worker.testing.simulation.audit import Outcome
from durable_worker.testing.simulation.chance import ALL_FAULTS, Fault, FaultKind
from durable_worker.testing.simulation.trace import Line
from durable_worker.worker.registry import Worker

SETTLED_WITHIN_SECONDS = 3 * 3600.0
"""A clock that was an hour ahead may have set deadlines that are an hour away."""


class Started(Struct, frozen=True):
    """A run that the client starts, and how it may end; `expected` None: in any way."""

    run_id: str
    workflow: str
    input: Raw = Raw(b"null")
    expected: frozenset[Outcome] | None = None


class Sent(Struct, frozen=True):
    """A signal that the client sends, some (virtual) seconds after the beginning."""

    name: str
    payload: Raw = Raw(b"null")
    after: float = 0.0


class Cancelled(Struct, frozen=True):
    """A cancellation that the client asks for."""

    run_id: str
    after: float = 0.0


class Plan(Struct, frozen=True):
    """What happens in a world besides its faults. `worker` is journaled already."""

    worker: Worker
    starts: tuple[Started, ...]
    signals: tuple[Sent, ...] = ()
    cancels: tuple[Cancelled, ...] = ()
    kinds: frozenset[FaultKind] = ALL_FAULTS
    patience: float = SETTLED_WITHIN_SECONDS
    """Virtual seconds without faults within which everything has to come to its end."""


class Verdict(Struct, frozen=True):
    """What one seed has shown."""

    seed: int
    violations: tuple[str, ...]
    faults: tuple[Fault, ...]
    outcomes: dict[str, Outcome]
    digest: str
    seconds: float
    callbacks: int
    forbidden: tuple[str, ...] = ()
    """Steps that were called without leave to run."""
    unserved: tuple[str, ...] = ()
    """Steps that a run waits for and no worker has."""
    lines: tuple[Line, ...] = ()
