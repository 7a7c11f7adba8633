from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.database import Postgres, PostgresServer
from tests.integration.cli.programs import APP, Program


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """The command line in an empty directory with `app.py`."""
    program = Program(tmp_path)
    program.write("app.py", APP)
    return program


@pytest.fixture(scope="module")
def private() -> Iterator[PostgresServer]:
    """A server whose roles and settings the tests may change."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def on_private(private: PostgresServer) -> Postgres:
    return Postgres(private.url())
