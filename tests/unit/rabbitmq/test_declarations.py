"""Two connections of one transport declare the same queue."""

import asyncio
from typing import Any, cast

import pytest

from durable_worker.protocol.names import Names
from durable_worker.transports.rabbitmq import declarations
from durable_worker.transports.rabbitmq.declarations import Declarations
from durable_worker.transports.rabbitmq.lanes import Channel


class Answering:
    """A channel that tells when it is asked for a queue, and answers when it may."""

    is_limited = False

    def __init__(self, told: list[str], name: str) -> None:
        self._told = told
        self._name = name
        self.is_asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    @property
    def connection(self) -> "Answering":
        return self

    async def declare_queue(self, _: str, __: object) -> None:
        self._told.append(self._name)
        self.is_asked.set()
        await self.may_answer.wait()


def declaring(channel: Answering, by: Declarations) -> "asyncio.Future[None]":
    return asyncio.ensure_future(by.declare_over(cast(Channel, cast(Any, channel)), "q"))


@pytest.mark.parametrize("patience", [60.0, 0.05])
async def test_a_connection_waits_for_the_other_one_but_not_for_one_that_hangs(
    patience: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(declarations, "TURN_SECONDS", patience)
    made, told = Declarations(Names(), emit=lambda _: None), list[str]()
    hanging, healthy, third = (Answering(told, name) for name in ("hanging", "healthy", "third"))
    healthy.may_answer.set()
    async with asyncio.timeout(10):
        first = declaring(hanging, made)
        await hanging.is_asked.wait()
        second = declaring(healthy, made)
        if patience > 1:
            for _ in range(10):
                await asyncio.sleep(0)
            assert told == ["hanging"]
            hanging.may_answer.set()
        await second
        assert told == ["hanging", "healthy"]
        hanging.may_answer.set()
        third.may_answer.set()
        await asyncio.gather(first, declaring(third, made))
