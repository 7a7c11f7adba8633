"""Holds the database for this process."""

import asyncio
from datetime import timedelta

from durable_worker.clock import Clock
from durable_worker.errors import LeaseLostError, StoreError
from durable_worker.operator.log import log
from durable_worker.operator.options import OperatorOptions
from durable_worker.operator.patience import Patience
from durable_worker.stores.base import Lease, LeaseHolder, Owner, SharedStore, Store
from durable_worker.transports.base import Transport

ACQUIRE_SECONDS = 0.5
UNRENEWED_SECONDS = 60.0
"""A lease that nobody has renewed for so long is that of a holder that is gone, whenever it claims
to end: the clock of that holder may have been hours ahead."""


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
        self._ttl = _milliseconds(options.lease_ttl)
        self.asked_at = clock.monotonic()

    async def acquire(self) -> Lease:
        """Wait for the lease; says once who holds it. `asked_at` is then when it was asked for."""
        told: LeaseHolder | None = None
        seen: LeaseHolder | None = None
        seen_since = 0.0
        while True:
            now = self._clock.now()
            if seen is not None and self._clock.monotonic() - seen_since > UNRENEWED_SECONDS:
                now = max(now, seen.expires_at)
            self.asked_at = self._clock.monotonic()
            outcome = await self._take(self._owner, now=now, ttl=self._ttl)
            if isinstance(outcome, Lease):
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


class Tenure:
    """The right of this process to write, under the token that it has at the moment.

    `since`: when it was asked for (monotonic). `shared`: the store, if this operator is one of its
    members. They give up one that was not heard
    of for longer than its lease; that one becomes a member again, under another token.
    """

    def __init__(
        self,
        store: Store,
        owner: Owner,
        lease: Lease,
        *,
        since: float,
        options: OperatorOptions,
        clock: Clock,
        shared: SharedStore | None = None,
    ) -> None:
        self._store = store
        self._owner = owner
        self._clock = clock
        self._ttl = _milliseconds(options.lease_ttl)
        self._options = options
        self._regaining = asyncio.Lock()
        self.shared = shared
        self.is_takeover = lease.is_takeover
        self.token = lease.token
        self._note(since)

    def is_sure(self) -> bool:
        """Whether nobody can have taken over yet, by any clock that is not far from this one."""
        return self._clock.monotonic() < self._sure_until

    def _note(self, asked_at: float) -> None:
        self._sure_until = asked_at + self._ttl / 2000

    async def regain(self, lost: int) -> bool:
        """Whether writing goes on, under another token than this one. Raises `StoreError` if that
        cannot be found out for too long."""
        if self.shared is None:
            return False
        async with self._regaining:
            patience = Patience(self._options, self._clock.monotonic)
            while self.token == lost:
                try:
                    outcome = await self.shared.join(
                        self._owner, now=self._clock.now(), ttl=self._ttl
                    )
                except StoreError as error:
                    if not patience.left():
                        raise
                    log.warning("membership_not_regained", error=str(error))
                    await self._clock.sleep(ACQUIRE_SECONDS)
                    continue
                if not isinstance(outcome, Lease):
                    return False
                self.token = outcome.token
                log.warning(
                    "membership_regained",
                    token=outcome.token,
                    hint="the other operators had not heard of this one for longer than its lease",
                )
        return True

    async def keep(self) -> None:
        """Renew until cancelled. Raises `LeaseLostError`."""
        while True:
            await self._clock.sleep(self._ttl / 3000)
            asked_at = self._clock.monotonic()
            token = self.token
            try:
                await self._store.renew_lease(token, now=self._clock.now(), ttl=self._ttl)
                self._note(asked_at)
            except LeaseLostError:
                if not await self.regain(token):
                    raise
            except StoreError as error:
                # Whoever takes over meanwhile is found out at the next commit.
                log.warning("lease_not_renewed", error=str(error))

    async def release(self) -> None:
        await self._store.release_lease(self.token)


def _milliseconds(span: timedelta) -> int:
    return int(span.total_seconds() * 1000)
