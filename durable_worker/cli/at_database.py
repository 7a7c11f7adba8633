"""A client of the database that an operator works on."""

from pathlib import Path

from durable_worker.client import Client, store_client
from durable_worker.edge.plain import Codec
from durable_worker.errors import UsageError
from durable_worker.stores.address import Address
from durable_worker.stores.opening import store_at
from durable_worker.transports.base import DEFAULT_MAX_MESSAGE_BYTES


def open_client(
    where: Address, tenant: str, codec: Codec | None = None, *, max_message_bytes: int | None = None
) -> Client:
    if isinstance(where, Path) and not where.exists():
        raise UsageError(
            f"there is no database {where}; `durable-worker dev` or `durable-worker operator` "
            f"creates one."
        )
    return store_client(
        store_at(where),
        tenant=tenant,
        codec=codec,
        max_message_bytes=max_message_bytes or DEFAULT_MAX_MESSAGE_BYTES,
    )
