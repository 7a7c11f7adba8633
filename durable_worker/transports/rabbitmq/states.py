"""What a transport tells about its connection, for a terminal or a log."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Connecting:
    """The first attempt starts. `url` shows no credentials."""

    url: str


@dataclass(frozen=True, slots=True)
class ConnectFailed:
    """An attempt failed (1-based, counted since the broker was last connected for a while)."""

    attempt: int
    retry_in: timedelta
    reason: str


@dataclass(frozen=True, slots=True)
class Connected:
    """Both connections are up and consuming. `generation` grows by one with each connection."""

    url: str
    generation: int


@dataclass(frozen=True, slots=True)
class Disconnected:
    """An established connection is gone; messages not acked go to somebody else."""

    reason: str
    retry_in: timedelta


@dataclass(frozen=True, slots=True)
class Blocked:
    """The broker takes no messages for now (memory or disk alarm); sends wait."""


@dataclass(frozen=True, slots=True)
class Unblocked:
    """The broker takes messages again."""


@dataclass(frozen=True, slots=True)
class ConsumerLost:
    """The broker no longer delivers from this queue or exchange although the connection stands."""

    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class ConsumerRestored:
    """A consumer that was lost takes messages again."""

    source: str


@dataclass(frozen=True, slots=True)
class TopologyRefused:
    """A queue cannot be declared again after a reconnect."""

    queue: str
    reason: str


TransportState = (
    Connecting
    | ConnectFailed
    | Connected
    | Disconnected
    | Blocked
    | Unblocked
    | ConsumerLost
    | ConsumerRestored
    | TopologyRefused
)

StateListener = Callable[[TransportState], None]
