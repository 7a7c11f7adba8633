"""An operator on every store that it knows, over the memory transport."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from durable_worker.protocol.names import Names
from durable_worker.stores.base import Store
from durable_worker.stores.memory import MemoryStore
from durable_worker.stores.sqlite import SqliteStore
from durable_worker.transports.base import Transport
from durable_worker.transports.memory import MemoryTransport
from durable_worker.transports.rabbitmq import RabbitTransport


class DurableMemory(MemoryTransport):
    """Claims to survive its process, so that the operator keeps an outbox."""

    @property
    def is_durable(self) -> bool:
        return True


NewTransport = Callable[[], AbstractAsyncContextManager[Transport]]


@pytest.fixture(params=["memory", pytest.param("rabbitmq", marks=pytest.mark.broker)])
async def new_transport(
    request: pytest.FixtureRequest, names: Names
) -> AsyncIterator[NewTransport]:
    """Ways into one broker, for one process each."""
    if request.param == "rabbitmq":
        url: str = request.getfixturevalue("broker_url")
        yield lambda: RabbitTransport(url, names=names)
        return
    async with DurableMemory(names=names) as shared:
        yield lambda: shared


def transport_of(way: AbstractAsyncContextManager[Transport]) -> Transport:
    """What is not entered yet."""
    assert isinstance(way, RabbitTransport | MemoryTransport)
    return way


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "db")
    async with made:
        yield made


@pytest.fixture(params=["lossy", "durable"])
async def transport(request: pytest.FixtureRequest, names: Names) -> AsyncIterator[MemoryTransport]:
    kind = DurableMemory if request.param == "durable" else MemoryTransport
    async with kind(names=names) as made:
        yield made
