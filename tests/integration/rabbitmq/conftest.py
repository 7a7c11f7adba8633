"""A transport behind a network that can fail, and a record of what it says about it."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

import pytest

from durable_worker.protocol.names import Names
from durable_worker.transports.rabbitmq import Lane, RabbitTransport, TransportState
from tests.integration.rabbitmq.proxy import Proxy

S = TypeVar("S")

PATIENCE = 20.0


class States:
    """Everything a transport said, in order; can be waited on."""

    def __init__(self) -> None:
        self.seen: list[TransportState] = []
        self._news = asyncio.Event()

    def __call__(self, state: TransportState) -> None:
        self.seen.append(state)
        self._news.set()

    async def until(self, kind: type[S], *, count: int = 1) -> S:
        """Wait until that many states of one kind have been seen; the last of those."""
        async with asyncio.timeout(PATIENCE):
            while len(found := [state for state in self.seen if isinstance(state, kind)]) < count:
                self._news.clear()
                await self._news.wait()
        return found[count - 1]


@pytest.fixture(params=[*Lane], autouse=True)
def lane(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Lane:
    """The AMQP client that every transport of the test uses."""
    lane: Lane = request.param
    monkeypatch.setitem(RabbitTransport.__init__.__kwdefaults__, "lane", lane)
    return lane


@pytest.fixture
def names(prefix: str) -> Names:
    return Names(prefix=prefix)


@pytest.fixture
async def proxy(broker_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(broker_url) as proxy:
        yield proxy


@pytest.fixture
async def states() -> States:
    return States()
