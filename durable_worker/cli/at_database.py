"""A client of a local database."""

from pathlib import Path

from durable_worker.client import Client, store_client
from durable_worker.edge.plain import Codec
from durable_worker.errors import UsageError
from durable_worker.stores.sqlite import SqliteStore
from durable_worker.transports.base import DEFAULT_MAX_MESSAGE_BYTES


def open_client(
    path: Path, tenant: str, codec: Codec | None = None, *, max_message_bytes: int | None = None
) -> Client:
    if not path.exists():
        raise UsageError(
            f"there is no database {path}; `durable-worker dev` or `durable-worker operator` "
            f"creates one."
        )
    return store_client(
        SqliteStore(path),
        tenant=tenant,
        codec=codec,
        max_message_bytes=max_message_bytes or DEFAULT_MAX_MESSAGE_BYTES,
    )
