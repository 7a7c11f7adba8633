"""How an operator is set up."""

from dataclasses import dataclass
from datetime import timedelta

from durable_worker.protocol.keys import Keyring


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorOptions:
    """`partition`: of new runs. `recoveries`: how often lost work is sent again before it is given
    up. `silence`: a turn that has beaten, then is silent for so long, is lost. `store_patience`:
    how long a store that refuses to write is retried before the service ends. `batch_size`: inputs
    in one transaction. `prefetch`: messages taken from each queue before they are acked.
    `cached_checkpoints`: how many are kept in memory. `dead_letters_kept` and `dead_letter_age`:
    beyond either, the oldest dead letters are forgotten. `tells_events`: whether what happens to
    runs is broadcast, for whoever listens. `tenant_keys`: starts and requests need a tenant token
    that one of these keys has signed."""

    partition: str | None = None
    tenant_keys: Keyring | None = None
    recoveries: int = 10
    silence: timedelta = timedelta(seconds=60)
    store_patience: timedelta = timedelta(seconds=30)
    lease_ttl: timedelta = timedelta(seconds=15)
    resend_delay: timedelta = timedelta(seconds=1)
    inbox_interval: timedelta = timedelta(milliseconds=100)
    batch_size: int = 500
    prefetch: int = 1_000
    tells_events: bool = True
    cached_checkpoints: int = 200_000
    dead_letters_kept: int = 10_000
    dead_letter_age: timedelta = timedelta(days=90)
