"""A program that lives in this process from one input to the next."""

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from durable_worker.transports.memory import MemoryTransport

PATIENCE_SECONDS = 30.0


class House(Protocol):
    """Gives inputs to what `live` runs. What escapes there or in the event loop is raised here."""

    transport: MemoryTransport

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(self._escaped)
        self._defects: list[BaseException | str] = []
        self._open: set[asyncio.Future[Any]] = set()
        self.is_open = asyncio.Event()
        self._is_closing = asyncio.Event()
        self._living = self._loop.create_task(self.live())
        self._loop.run_until_complete(self._begun())

    @abstractmethod
    async def live(self) -> None: ...

    @abstractmethod
    async def receive(self, data: bytes) -> None: ...

    def give(self, data: bytes) -> None:
        self._loop.run_until_complete(self._given(data))

    def close(self) -> None:
        self._is_closing.set()
        self._loop.run_until_complete(self._living)
        self._loop.close()

    async def until_closed(self, serving: "asyncio.Task[None]") -> None:
        closing = asyncio.ensure_future(self._is_closing.wait())
        await asyncio.wait([serving, closing], return_when=asyncio.FIRST_COMPLETED)
        closing.cancel()

    def start(self, work: Coroutine[Any, Any, Any]) -> None:
        task = self._loop.create_task(work)
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def nothing_left(self, *queues: str) -> None:
        """Return when each message of these queues has been answered for."""
        await self.until(lambda: not any(map(self.transport.depth, queues)))

    async def consumed(self, queue: str) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await self.transport.consumers(queue):  # noqa: ASYNC110
                await asyncio.sleep(0)

    async def until(self, is_so: Callable[[], bool]) -> None:
        await settled(lambda: self._is_dead or is_so())
        self._raise_defects()

    async def _begun(self) -> None:
        beginning = asyncio.ensure_future(self.is_open.wait())
        await asyncio.wait([self._living, beginning], return_when=asyncio.FIRST_COMPLETED)
        beginning.cancel()
        self._raise_defects()

    async def _given(self, data: bytes) -> None:
        await self.receive(data)
        self._raise_defects()

    @property
    def _is_dead(self) -> bool:
        return self._living.done() or bool(self._defects)

    def _raise_defects(self) -> None:
        if self._living.done():
            self._living.result()
            raise AssertionError("it has ended")
        assert not self._defects, self._defects

    def _escaped(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._defects.append(context.get("exception") or str(context["message"]))


async def settled(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not is_so():  # noqa: ASYNC110 - what is awaited has no event of its own
            await asyncio.sleep(0)
