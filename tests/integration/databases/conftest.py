"""Every test of this folder runs on every kind of database server."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from durable_worker.stores.address import ServerAddress
from tests.database import MariadbServer, Mysql, Postgres, PostgresServer
from tests.database.mysql import made_database
from tests.database.schemas import made_schema
from tests.integration.cli.programs import APP, Program

SERVERS = ["postgres", "mysql"]


@dataclass(frozen=True, slots=True)
class OwnServer:
    """One that the test may stop, kill and start again."""

    server: PostgresServer | MariadbServer

    @contextmanager
    def database(self) -> Iterator[ServerAddress]:
        """With our tables."""
        if isinstance(self.server, PostgresServer):
            with made_schema(Postgres(self.server.url())) as schema:
                yield schema
        else:
            with made_database(Mysql(self.server.url())) as database:
                yield database


@pytest.fixture(params=SERVERS)
def own_server(request: pytest.FixtureRequest) -> OwnServer:
    name = {"postgres": "postgres_server", "mysql": "mariadb_server"}[request.param]
    return OwnServer(request.getfixturevalue(name))


@pytest.fixture(params=SERVERS)
def database(request: pytest.FixtureRequest) -> ServerAddress:
    """With our tables, all empty."""
    name = {"postgres": "schema", "mysql": "mysql_database"}[request.param]
    address: ServerAddress = request.getfixturevalue(name)
    return address


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """The command line in an empty directory with `app.py`."""
    program = Program(tmp_path)
    program.write("app.py", APP)
    return program
