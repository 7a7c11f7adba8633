"""A store in a PostgreSQL database."""

from durable_worker.stores.postgres.store import PostgresStore

__all__ = ["PostgresStore"]
