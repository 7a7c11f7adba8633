"""Fixtures that every test can use: the asyncio backend, a broker, a prefix of one's own."""

import os
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TypeVar

import pytest
import structlog
from hypothesis import HealthCheck, settings

from durable_worker.stores.address import MysqlAddress, PostgresAddress
from tests.broker import Broker, BrokerNode, new_prefix, open_broker
from tests.broker.choice import PORT_VARIABLE
from tests.broker.lanes import LANE_VARIABLE
from tests.database import (
    MariadbServer,
    Mysql,
    Postgres,
    PostgresServer,
    open_mysql,
    open_postgres,
)
from tests.database.mysql import empty_tables, made_database
from tests.database.schemas import empty, made_schema
from tests.hangs import watch
from tests.servers import ServerUnavailableError

T = TypeVar("T")

# How long an example takes says something about the machine only.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

NO_PORT = "1"
"""Nothing listens there, so a private node is started."""

BROKER = pytest.StashKey[Broker]()
PREFIXES = pytest.StashKey[int]()
MANY_PREFIXES = 6
"""Up to 24 queues each. A node with 1,024 file handles stands still at 309: see CONTRIBUTING.md."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, None, None]:
    yield
    stash = item.config.stash
    if nextitem is None or BROKER not in stash or stash.get(PREFIXES, 0) < MANY_PREFIXES:
        return
    if nextitem.path != item.path or not _is_shared_with_others(item):
        stash[PREFIXES] = 0
        stash[BROKER].sweep()


def _is_shared_with_others(item: pytest.Item) -> bool:
    """Whether something that the tests of its file have in common may be connected."""
    fixtures = getattr(item, "_fixtureinfo").name2fixturedefs.items()  # noqa: B009
    return any(
        found[-1].scope in ("class", "module", "package")
        for name, found in fixtures
        if name != _logging_as_it_was.__name__
    )


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--amqp-lane", choices=("fast", "aio-pika"), help="the AMQP client of processes in tests"
    )


def pytest_configure(config: pytest.Config) -> None:
    lane = config.getoption("--amqp-lane")
    if lane is not None:
        os.environ[LANE_VARIABLE] = lane
    watch(config)


@pytest.fixture(scope="module", autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """A file that leaves logs set up for its process would fail another one, some day."""
    before = _kinds_of_logger()
    yield
    assert _kinds_of_logger() == before, "structlog is set up in another way than before"


def _kinds_of_logger() -> dict[str, object]:
    # Lists of processors are the ones that tests exchange, and put back, to read lines.
    return {name: what for name, what in structlog.get_config().items() if name != "processors"}


@contextmanager
def required(server: AbstractContextManager[T]) -> Iterator[T]:
    """What cannot be had fails the test with the sentence that says what to do."""
    with ExitStack() as stack:
        obstacle = ""
        try:
            found = stack.enter_context(server)
        except ServerUnavailableError as error:
            obstacle = str(error)
        if obstacle:
            pytest.fail(obstacle, pytrace=False)
        yield found


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def broker(pytestconfig: pytest.Config) -> Iterator[Broker]:
    with required(open_broker(_environment())) as broker:
        pytestconfig.stash[BROKER] = broker
        yield broker


def _environment() -> dict[str, str]:
    """Of several sessions side by side only the first may use the broker that is there: a node
    carries some 300 queues where the system lets it open 1,024 files."""
    if os.environ.get("PYTEST_XDIST_WORKER", "gw0") == "gw0":
        return dict(os.environ)
    return {**os.environ, PORT_VARIABLE: NO_PORT}


@pytest.fixture(scope="session")
def broker_url(broker: Broker) -> str:
    """URL of a RabbitMQ; the virtual host is the session's own wherever that can be arranged."""
    return broker.url


@pytest.fixture
def prefix(pytestconfig: pytest.Config) -> str:
    """A prefix for queues and exchanges that no other test, session or user has."""
    stash = pytestconfig.stash
    stash[PREFIXES] = stash.get(PREFIXES, 0) + 1
    return new_prefix()


@pytest.fixture
def broker_node() -> Iterator[BrokerNode]:
    """A started private node that the test may stop, restart, kill and run rabbitmqctl on."""
    with BrokerNode() as node:
        yield node


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL database in which schemas can be made."""
    with required(open_postgres()) as postgres:
        yield postgres


@pytest.fixture(scope="session")
def shared_schema(postgres: Postgres) -> Iterator[PostgresAddress]:
    with made_schema(postgres) as address:
        yield address


@pytest.fixture
def schema(postgres: Postgres, shared_schema: PostgresAddress) -> PostgresAddress:
    """A schema with our tables, all empty."""
    empty(postgres, shared_schema)
    return shared_schema


@pytest.fixture
def postgres_server() -> Iterator[PostgresServer]:
    """A started private server that the test may stop, kill and start again."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def mysql() -> Iterator[Mysql]:
    """A MariaDB or MySQL server on which databases can be made."""
    with required(open_mysql()) as mysql:
        yield mysql


@pytest.fixture(scope="session")
def shared_mysql_database(mysql: Mysql) -> Iterator[MysqlAddress]:
    with made_database(mysql) as address:
        yield address


@pytest.fixture
def mysql_database(shared_mysql_database: MysqlAddress) -> MysqlAddress:
    """A database with our tables, all empty."""
    empty_tables(shared_mysql_database)
    return shared_mysql_database


@pytest.fixture
def mariadb_server() -> Iterator[MariadbServer]:
    """A started private server that the test may stop, kill and start again."""
    with MariadbServer() as server:
        yield server
