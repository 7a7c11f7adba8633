"""Holds the database for this process."""

from dataclasses import dataclass

from durable_worker.clock import Clock
from durable_worker.errors import LeaseLostError, StoreError
from durable_worker.operator.log import log
from durable_worker.operator.options import OperatorOptions
from durable_worker.stores.base import Lease, LeaseHolder, Owner, SharedStore, Store
from durable_worker.transports.base import Transport

ACQUIRE_SECONDS = 0.5
UNRENEWED_SECONDS = 60.0
"""A lease that nobody has renewed for so long is that of a holder that is gone, whenever it claims
to end: the clock of that holder may have been hours ahead."""


@dataclass(frozen=True, slots=True)
class Member:
    """One of the operators that write a store together."""

    store: SharedStore
    token: int


def shared_store(store: Store, transport: Transport) -> SharedStore | None:
    """The store, if it may have several operators. What a transport without durability has
    forgotten is sent again by whoever is alone only."""
    return store if transport.is_durable and isinstance(store, SharedStore) else None


class LeaseKeeper:
    """`shared`: the store, if this operator is to be one of its members."""

    def __init__(
        self,
        store: Store,
        owner: Owner,
        *,
        options: OperatorOptions,
        clock: Clock,
        shared: SharedStore | None = None,
    ) -> None:
        self._store = store
        self._take = store.acquire_lease if shared is None else shared.join
        self._owner = owner
        self._clock = clock
        self._ttl = int(options.lease_ttl.total_seconds() * 1000)
        self._sure_until = clock.monotonic()

    @property
    def is_sure(self) -> bool:
        """Whether nobody can have taken over yet, by any clock that is not far from this one."""
        return self._clock.monotonic() < self._sure_until

    def _note(self, asked_at: float) -> None:
        self._sure_until = asked_at + self._ttl / 2000

    async def acquire(self) -> Lease:
        """Wait for the lease; says once who holds it."""
        told: LeaseHolder | None = None
        seen: LeaseHolder | None = None
        seen_since = 0.0
        while True:
            now = self._clock.now()
            if seen is not None and self._clock.monotonic() - seen_since > UNRENEWED_SECONDS:
                now = max(now, seen.expires_at)
            asked_at = self._clock.monotonic()
            outcome = await self._take(self._owner, now=now, ttl=self._ttl)
            if isinstance(outcome, Lease):
                self._note(asked_at)
                log.info("lease_acquired", token=outcome.token, is_takeover=outcome.is_takeover)
                return outcome
            if outcome != seen:
                seen, seen_since = outcome, self._clock.monotonic()
            if told is None or told.owner != outcome.owner:
                told = outcome
                log.warning(
                    "lease_held_by_another",
                    host=outcome.owner.host,
                    pid=outcome.owner.pid,
                    operator=outcome.owner.instance_id,
                    hint="waiting until that operator ends or dies",
                )
            await self._clock.sleep(ACQUIRE_SECONDS)

    async def keep(self, token: int) -> None:
        """Renew until cancelled. Raises `LeaseLostError`."""
        while True:
            await self._clock.sleep(self._ttl / 3000)
            asked_at = self._clock.monotonic()
            try:
                await self._store.renew_lease(token, now=self._clock.now(), ttl=self._ttl)
                self._note(asked_at)
            except LeaseLostError:
                raise
            except StoreError as error:
                # Whoever takes over meanwhile is found out at the next commit.
                log.warning("lease_not_renewed", error=str(error))
