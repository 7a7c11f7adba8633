"""A PostgreSQL for the tests: the one that runs already, or a private server without a trace."""

from tests.database.choice import Postgres, new_schema, open_postgres
from tests.database.server import PostgresServer

__all__ = ["Postgres", "PostgresServer", "new_schema", "open_postgres"]
