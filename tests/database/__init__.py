"""Databases for the tests: on the servers that run already, or on private ones without a trace."""

from tests.database.choice import Postgres, new_schema, open_postgres
from tests.database.mariadb import MariadbServer
from tests.database.mysql import Mysql, open_mysql
from tests.database.server import PostgresServer

__all__ = [
    "MariadbServer",
    "Mysql",
    "Postgres",
    "PostgresServer",
    "new_schema",
    "open_mysql",
    "open_postgres",
]
