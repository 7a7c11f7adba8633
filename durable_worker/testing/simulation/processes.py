"""Simulated processes: started, killed, paused, started again with nothing in memory."""

from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

from durable_worker.testing.simulation.chance import SeededChance
from durable_worker.testing.simulation.journal import Execution, Journal
from durable_worker.testing.simulation.loop import ProcessLoop, Scheduler
from durable_worker.testing.simulation.trace import Trace

EPOCH_MS = 1_800_000_000_000
"""Wall-clock time at the beginning of every simulation."""

Main = Callable[["Process"], Coroutine[Any, Any, None]]


class ProcessClock:
    """Virtual time; its wall clock can be set, as that of a machine."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.skew = 0.0

    def now(self) -> int:
        scheduler = self._scheduler
        return EPOCH_MS + int((scheduler.now + scheduler.skipped + self.skew) * 1000)

    def monotonic(self) -> float:
        return self._scheduler.now

    async def sleep(self, seconds: float) -> None:
        from asyncio import sleep

        await sleep(seconds)


class Process:
    """One life after the other of a process. `main` runs in each; `ask_to_stop` ends it nicely."""

    def __init__(
        self,
        name: str,
        main: Main,
        *,
        scheduler: Scheduler,
        trace: Trace,
        random: Random,
        journal: Journal,
        may_die_of: tuple[type[BaseException], ...] = (),
    ) -> None:
        self.name = name
        self.clock = ProcessClock(scheduler)
        self.chance = SeededChance(random)
        self.random = random
        self.lives = 0
        self.is_alive = False
        self.is_stopping = False
        self.is_wanted = True
        self.stop: Callable[[], None] | None = None
        self.on_end: Callable[[Process], None] | None = None
        self.complaints: list[str] = []
        self.journal = journal
        self._main = main
        self._scheduler = scheduler
        self._trace = trace
        self._may_die_of = may_die_of
        self._loop: ProcessLoop | None = None

    @property
    def loop(self) -> ProcessLoop:
        assert self._loop is not None
        return self._loop

    @property
    def label(self) -> str:
        return f"{self.name}.{self.lives}"

    def start(self) -> None:
        if self.is_alive or not self.is_wanted:
            return
        self.lives += 1
        self.is_alive, self.is_stopping, self.stop = True, False, None
        loop = self._loop = ProcessLoop(self._scheduler, self)  # type: ignore[abstract]
        self._trace.note(self._scheduler.now, self.label, "STARTED")
        with self._scheduler.inside(loop):
            main = loop.create_task(self._main(self), name=self.name)
        main.add_done_callback(lambda task: self._ended(loop, task.exception(), task.cancelled()))

    def kill(self) -> None:
        """Nothing of what it was about to do happens."""
        if self.is_alive:
            self.is_alive = False
            self.complaints += [f"{self.label}: {each}" for each in self.loop.errors]
            self._say_ended()
            self.loop.die()

    def begin(self, execution: Execution) -> None:
        """An attempt at a step starts here."""
        self._trace.note(
            execution.started_at,
            self.label,
            "ran",
            execution.name,
            f"{execution.run_id}:{execution.seq}:{execution.attempt}",
        )
        self.journal.executions.append(execution)
        if self.journal.on_start is not None:
            self.journal.on_start(execution)

    def ask_to_stop(self) -> None:
        self.is_stopping = True
        if self.is_alive and self.stop is not None:
            self.loop.call_soon(self.stop)

    def pause(self, seconds: float) -> None:
        loop = self.loop
        loop.is_paused = True
        self._scheduler.call_at(self._scheduler.now + seconds, self._scheduler.resume, loop)

    def _ended(self, loop: ProcessLoop, error: BaseException | None, is_cancelled: bool) -> None:
        """The main task is done: as a process would exit now, whatever else still runs in it."""
        if loop.is_dead:
            return
        self.is_alive = False
        if is_cancelled or (error is not None and not isinstance(error, self._may_die_of)):
            self.complaints.append(f"{self.label} died of {error!r}")
        self.complaints += [f"{self.label}: {each}" for each in loop.errors]
        left = [each.get_name() for each in loop.open_tasks]
        if left:
            self.complaints.append(f"{self.label} left tasks behind: {', '.join(left)}")
        self._trace.note(
            self._scheduler.now, self.label, "ENDED", "" if error is None else type(error).__name__
        )
        self._say_ended()
        loop.die()

    def _say_ended(self) -> None:
        if self.on_end is not None:
            self.on_end(self)
