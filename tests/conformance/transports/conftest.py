"""Every transport, behind one fixture."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta

import pytest

from durable_worker.protocol.keys import Keyring
from durable_worker.protocol.names import Names
from durable_worker.transports.base import Transport
from durable_worker.transports.memory import MemoryTransport
from durable_worker.transports.rabbitmq import RabbitTransport
from durable_worker.transports.signing import SigningTransport

SMALL_LIMIT = 1_000

NewTransport = Callable[[], Transport]


@pytest.fixture
def names(prefix: str) -> Names:
    return Names(prefix=prefix)


RING = Keyring({"k1": bytes(range(32))})


@pytest.fixture(
    params=[
        "memory",
        "signed memory",
        pytest.param("rabbitmq", marks=pytest.mark.broker),
        pytest.param("signed rabbitmq", marks=pytest.mark.broker),
        pytest.param("rabbitmq over aio-pika", marks=pytest.mark.broker),
    ]
)
def new_transport(request: pytest.FixtureRequest, names: Names) -> NewTransport:
    """Makes transports that are not entered yet, as one process of a deployment would have."""
    kind: str = request.param

    def make() -> Transport:
        if "memory" in kind:
            return MemoryTransport(names=names, max_message_bytes=SMALL_LIMIT)
        url: str = request.getfixturevalue("broker_url")
        return RabbitTransport(
            url,
            names=names,
            lane="aio-pika" if "aio-pika" in kind else "fast",
            max_message_bytes=SMALL_LIMIT,
            held_for=timedelta(seconds=4),
        )

    return (lambda: SigningTransport(make(), RING, names=names)) if "signed" in kind else make


@pytest.fixture
async def transport(new_transport: NewTransport) -> AsyncIterator[Transport]:
    async with entered(new_transport) as transport:
        yield transport


def entered(new_transport: NewTransport) -> AbstractAsyncContextManager[Transport]:
    return new_transport()
