from pathlib import Path

import pytest

from tests.integration.cli.programs import APP, Program


@pytest.fixture
def program(tmp_path: Path) -> Program:
    """The command line in an empty directory with `app.py`."""
    program = Program(tmp_path)
    program.write("app.py", APP)
    return program


@pytest.fixture
def on_broker(tmp_path: Path, broker_url: str, prefix: str) -> Program:
    """The same, with every command told the broker and a prefix of its own."""
    program = Program(tmp_path, ("--broker", broker_url, "--prefix", prefix))
    program.write("app.py", APP)
    return program
