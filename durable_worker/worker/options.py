"""How a worker is set up."""

from collections.abc import Sequence
from datetime import timedelta

from msgspec import Struct

from durable_worker.protocol.base import TokenSource
from durable_worker.worker.determinism.policy import Determinism

DEFAULT_RENEW_AFTER = timedelta(seconds=5)

DELTAS_FROM_BYTES = 16 * 1024
"""Shorter histories cost less to send than to keep track of."""


class WorkerOptions(Struct, frozen=True):
    """`concurrency` bounds the steps that run at one time, `grace` how long a drain may take,
    `kept_runs` how many suspended bodies stay in memory between turns. `place` is what messages to
    people call the broker: no credentials, but the virtual host. `determinism` says what happens
    about bodies that a replay could not repeat; None: what `DURABLE_DETERMINISM` says, else
    `WARN`. `shadow` is the command line of a process that replays turns for `RAISE`. `renew_after`
    is how old a message may get before the broker is told that it is still being worked on: less
    than half of what the broker allows (RabbitMQ: `consumer_timeout`). Code that keeps the event
    loop from turning for `blocked_after` is named in a warning (None: never). `token` goes with
    questions to an operator that keeps tenants apart by tokens. From `deltas_from_bytes` of history
    on the operator is told that it need not be sent again."""

    concurrency: int = 100
    partition: str | None = None
    grace: timedelta = timedelta(seconds=30)
    kept_runs: int = 1_000
    place: str = "in this process"
    determinism: Determinism | None = None
    shadow: Sequence[str] | None = None
    renew_after: timedelta = DEFAULT_RENEW_AFTER
    blocked_after: timedelta | None = timedelta(seconds=1)
    token: TokenSource | None = None
    deltas_from_bytes: int = DELTAS_FROM_BYTES
