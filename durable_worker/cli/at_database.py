"""A client of a local database."""

from pathlib import Path

from durable_worker.client import Client, store_client
from durable_worker.edge.plain import Codec
from durable_worker.errors import UsageError
from durable_worker.stores.sqlite import SqliteStore


def open_client(path: Path, tenant: str, codec: Codec | None = None) -> Client:
    if not path.exists():
        raise UsageError(
            f"there is no database {path}; `durable-worker dev` or `durable-worker operator` "
            f"creates one."
        )
    return store_client(SqliteStore(path), tenant=tenant, codec=codec)
