"""Fixtures that every test can use: the asyncio backend, a broker, a prefix of one's own."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.broker import Broker, BrokerNode, BrokerUnavailableError, new_prefix, open_broker

TEARDOWN_SECONDS = 20


def pytest_sessionstart() -> None:
    """End on SIGTERM as on Ctrl-C: what the fixtures opened is closed, if that does not hang."""

    def interrupt(*_: object) -> None:
        signal.alarm(TEARDOWN_SECONDS)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    with ExitStack() as stack:
        obstacle = ""
        try:
            found = stack.enter_context(open_broker())
        except BrokerUnavailableError as error:
            obstacle = str(error)
        if obstacle:
            pytest.fail(obstacle, pytrace=False)
        yield found


@pytest.fixture(scope="session")
def broker_url(broker: Broker) -> str:
    """URL of a RabbitMQ; the virtual host is the session's own wherever that can be arranged."""
    return broker.url


@pytest.fixture
def prefix() -> str:
    """A prefix for queues and exchanges that no other test, session or user has."""
    return new_prefix()


@pytest.fixture
def broker_node() -> Iterator[BrokerNode]:
    """A started private node that the test may stop, restart, kill and run rabbitmqctl on."""
    with BrokerNode() as node:
        yield node
