"""What a transport tells about its connection, for a terminal or a log."""

from collections.abc import Callable
from datetime import timedelta

from msgspec import Struct


class Connecting(Struct, frozen=True):
    """The first attempt starts. `url` shows no credentials."""

    url: str


class ConnectFailed(Struct, frozen=True):
    """An attempt failed (1-based, counted since the broker was last connected for a while)."""

    attempt: int
    retry_in: timedelta
    reason: str


class Connected(Struct, frozen=True):
    """Both connections are up and consuming. `generation` grows by one with each connection."""

    url: str
    generation: int


class Disconnected(Struct, frozen=True):
    """An established connection is gone; messages not acked go to somebody else."""

    reason: str
    retry_in: timedelta


class Blocked(Struct, frozen=True):
    """The broker takes no messages for now (memory or disk alarm); sends wait."""


class Unblocked(Struct, frozen=True):
    """The broker takes messages again."""


class ConsumerLost(Struct, frozen=True):
    """The broker no longer delivers from this queue or exchange although the connection stands."""

    source: str
    reason: str


class ConsumerRestored(Struct, frozen=True):
    """A consumer that was lost takes messages again."""

    source: str


class TopologyRefused(Struct, frozen=True):
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
