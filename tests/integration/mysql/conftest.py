from collections.abc import Iterator
from pathlib import Path

import pytest

from durable_worker.stores.address import MysqlAddress
from tests.database import MariadbServer, Mysql
from tests.database.mysql import made_database
from tests.integration.cli.programs import APP, Program


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """The command line in an empty directory with `app.py`."""
    program = Program(tmp_path)
    program.write("app.py", APP)
    return program


@pytest.fixture(scope="module")
def private() -> Iterator[MariadbServer]:
    """A server whose users and settings the tests may change."""
    with MariadbServer() as server:
        yield server


@pytest.fixture
def on_private(private: MariadbServer) -> Mysql:
    return Mysql(private.url())


@pytest.fixture
def private_database(on_private: Mysql) -> Iterator[MysqlAddress]:
    with made_database(on_private) as address:
        yield address
