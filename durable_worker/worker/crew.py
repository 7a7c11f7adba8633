"""A task for each delivery: as structured as a task group, at a fraction of its price."""

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import anyio

CANCEL_AGAIN_SECONDS = 0.1
"""What goes on after it was cancelled is cancelled once more after so long, until it has ended."""

Task = asyncio.Task[None]
Work = Coroutine[Any, Any, None]
S = TypeVar("S")


class Crew(Generic[S]):
    """`S` is what its members work on, each on one of its own.

    Leaving it cancels what is still at work and waits until the last one has ended.

    `is_ending`: a cancellation, from now on, is meant for the one that it reaches.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks: dict[S, Task] = {}
        self._left = asyncio.Event()
        self._defect: asyncio.Future[None] = self._loop.create_future()
        self._expected: dict[S, None] = {}
        self.is_ending = False

    @property
    def subjects(self) -> list[S]:
        """What somebody works on, or what is expected."""
        return [*self._tasks, *self._expected]

    def expect(self, subject: S) -> None:
        """It is under way, and nobody waits for it; it ends with `came`."""
        self._expected[subject] = None

    def came(self, subject: S) -> None:
        del self._expected[subject]
        if not self._expected:
            self._note_idle()

    def start(self, do: Callable[[Any], Work], subject: S, *, name: str) -> None:
        """`do(subject)`, on which nobody is at work yet."""
        work = self._at_work(do, subject)
        self._tasks[subject] = self._loop.create_task(work, name=name)

    def cancel(self, subject: S) -> None:
        """Whoever is at work on it."""
        self._tasks[subject].cancel()

    async def idle(self) -> None:
        """Wait until nobody is at work, and nothing is expected."""
        while self._tasks or self._expected:
            self._left.clear()
            await self._left.wait()

    async def watch(self) -> None:
        """Raise what one of them raises; never return."""
        await self._defect

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.is_ending = True
        cancelled: asyncio.CancelledError | None = None
        with anyio.CancelScope(shield=True):
            while self._tasks:
                for task in self._tasks.values():
                    task.cancel()
                try:
                    await asyncio.wait(self._tasks.values(), timeout=CANCEL_AGAIN_SECONDS)
                except asyncio.CancelledError as again:  # nothing may outlive its crew
                    cancelled = again
                for subject, task in [*self._tasks.items()]:
                    if task.done():  # before it had begun
                        del self._tasks[subject]
        if cancelled is not None:
            raise cancelled

    async def _at_work(self, do: Callable[[Any], Work], subject: S) -> None:
        try:
            await do(subject)
        except Exception as error:
            if not self._defect.done():
                self._defect.set_exception(error)
        finally:
            del self._tasks[subject]
            if not self._tasks:
                self._note_idle()

    def _note_idle(self) -> None:
        if not self._tasks and not self._expected:
            self._left.set()
