"""Who may write: one holder of the lease, or any number of members."""

from typing import TYPE_CHECKING, Any

from durable_worker.errors import StoreError
from durable_worker.stores.base import Lease, LeaseHolder, Owner
from durable_worker.stores.postgres.database import Database
from durable_worker.stores.processes import is_gone
from durable_worker.stores.queries import load_statements

if TYPE_CHECKING:
    from durable_worker.stores.postgres.database import Connection

_sql = load_statements("postgres", "lease") | load_statements("postgres", "shared")


class Membership:
    """Whoever joins or takes the lease locks its row, so that one comes after the other."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def acquire_lease(self, owner: Owner, *, now: int, ttl: int) -> Lease | LeaseHolder:
        async with self._database.connection() as connection, connection.transaction():
            row = await self._lock(connection)
            is_held = not row["is_released"]
            if is_held and (holder := _living_holder(row, now)) is not None:
                return holder
            gone = await _drop_dead(connection, token=0)
            if remaining := await connection.fetch(_sql["members"]):
                return LeaseHolder(_owner_of(remaining[0]), remaining[0]["expires_at"])
            token = int(row["token"]) + 1
            await connection.execute(_sql["take_lease"], token, *_values_of(owner), now + ttl)
        return Lease(token, is_takeover=is_held or gone)

    async def join(self, owner: Owner, *, now: int, ttl: int) -> Lease | LeaseHolder:
        async with self._database.connection() as connection, connection.transaction():
            row = await self._lock(connection)
            is_held = not row["is_released"]
            if is_held and (holder := _living_holder(row, now)) is not None:
                return holder
            gone = await _drop_dead(connection, token=0)
            token: int = await connection.fetchval(_sql["next_token"])
            await connection.execute(_sql["join"], token, *_values_of(owner), ttl)
        return Lease(token, is_takeover=is_held or gone)

    async def drop_dead(self, token: int) -> None:
        """But for the one with this token: who asks is alive."""
        async with self._database.connection() as connection:
            await _drop_dead(connection, token=token)

    async def _lock(self, connection: "Connection") -> Any:
        row = await connection.fetchrow(_sql["lock_lease"])
        if row is None:
            raise StoreError(
                f"the database {self._database.address.safe} has no row in its table lease any "
                f"more; restore a backup"
            )
        return row


async def _drop_dead(connection: "Connection", *, token: int) -> bool:
    """One that is just writing is left for later."""
    members = [each for each in await connection.fetch(_sql["members"]) if each["token"] != token]
    gone = [each["token"] for each in members if is_gone(_owner_of(each))]
    if not gone and not any(each["has_expired"] for each in members):
        return False
    return bool(await connection.fetch(_sql["drop_members"], gone, token))


def _living_holder(row: Any, now: int) -> LeaseHolder | None:
    holder = LeaseHolder(_owner_of(row), row["expires_at"])
    return holder if holder.expires_at > now and not is_gone(holder.owner) else None


def _owner_of(row: Any) -> Owner:
    return Owner(*(row[name] for name in Owner.__slots__))


def _values_of(owner: Owner) -> tuple[str, str, str, int, str | None]:
    return owner.instance_id, owner.host, owner.machine, owner.pid, owner.process_start
