from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker import BrokerNode
from tests.broker.tls import Authority, NodeTls
from tests.integration.cli.programs import APP, Program
from tests.integration.cli.tls import Marked, marked


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


@pytest.fixture(scope="session")
def tls_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Marked]:
    """A node that speaks TLS, and takes clients with and without a certificate."""
    authority = Authority(tmp_path_factory.mktemp("authority"))
    with BrokerNode(tls=NodeTls(authority, authority.server("localhost"))) as node:
        yield marked(node, authority)
