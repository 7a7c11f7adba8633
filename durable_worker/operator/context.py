"""What transactions share, and what follows from one."""

from collections.abc import Callable
from dataclasses import dataclass, field

from durable_worker.operator.ahead import Ahead
from durable_worker.operator.ledgers import Ledgers
from durable_worker.operator.messages import Outgoing
from durable_worker.operator.transitions.effects import BroadcastCancel, Emit, Limits
from durable_worker.protocol.names import Names
from durable_worker.stores.base import SharedStore, Store
from durable_worker.stores.records import DeadLetter, Run

VersionOf = Callable[[str, str | None], str | None]
"""(workflow, partition) -> the version that a new run starts on; None while nobody serves it."""


@dataclass(frozen=True, slots=True)
class WorkContext:
    """What every transaction of one operator shares."""

    store: Store
    ledgers: Ledgers
    names: Names
    limits: Limits
    version_of: VersionOf
    keeps_outbox: bool
    shared: SharedStore | None = None
    ahead: Ahead | None = None


@dataclass(slots=True)
class Consequences:
    """What is to be done once the transaction is committed."""

    outgoing: list[Outgoing] = field(default_factory=list[Outgoing])
    cancelled: list[BroadcastCancel] = field(default_factory=list[BroadcastCancel])
    events: list[Emit] = field(default_factory=list[Emit])
    ended: list[Run] = field(default_factory=list[Run])
    unserved: list[Run] = field(default_factory=list[Run])
    stale: list[str] = field(default_factory=list[str])
    earliest_timer: int | None = None
    letters: list[DeadLetter] = field(default_factory=list[DeadLetter])
    redriven: list[DeadLetter] = field(default_factory=list[DeadLetter])
    has_put_off: bool = False
