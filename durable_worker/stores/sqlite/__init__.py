"""A store in one SQLite file."""

from durable_worker.stores.sqlite.store import SqliteStore

__all__ = ["SqliteStore"]
