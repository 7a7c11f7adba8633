"""An event loop for each simulated process, and one scheduler that runs them all on virtual time.

Within a process callbacks run in the order in which they became ready, as asyncio promises; which
process goes on next is the seed's choice. Time passes only when every process waits.
"""

import asyncio
import contextvars
import sys
import warnings
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Mapping
from contextlib import contextmanager
from heapq import heappop, heappush
from random import Random
from typing import Any, NoReturn, TypeVar, TypeVarTuple, cast

from durable_worker.testing.simulation.errors import OutsideSimulationError

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _Handle:
    """The part of `asyncio.TimerHandle` that asyncio's primitives use, without its cost."""

    __slots__ = ("_when", "args", "context", "fn", "is_cancelled", "loop")

    def __init__(
        self,
        loop: "ProcessLoop | None",
        fn: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
        when: float = 0.0,
    ) -> None:
        self.loop = loop
        self.fn = fn
        self.args = args
        self.context = contextvars.copy_context() if context is None else context
        self.is_cancelled = False
        self._when = when

    def cancel(self) -> None:
        self.is_cancelled = True

    def cancelled(self) -> bool:
        return self.is_cancelled

    def when(self) -> float:
        return self._when


class _Future(asyncio.Future[Any]):
    """Hashes by number: `asyncio.wait` and anyio keep futures in sets, whose order must not depend
    on addresses."""

    def __init__(self, loop: "ProcessLoop") -> None:
        self.number = loop.next_number()
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.number


class _Task(asyncio.Task[Any]):
    def __init__(
        self,
        coro: Coroutine[Any, Any, Any],
        loop: "ProcessLoop",
        name: str | None,
        context: contextvars.Context | None,
    ) -> None:
        self.number = loop.next_number()
        super().__init__(coro, loop=loop, name=name or "task", context=context)

    def __hash__(self) -> int:
        return self.number


class ProcessLoop(asyncio.AbstractEventLoop):
    """The event loop of one life of one process."""

    def __init__(self, scheduler: "Scheduler", process: Any) -> None:
        self._scheduler = scheduler
        self.process = process
        self.ready: deque[_Handle] = deque()
        self.errors: list[str] = []
        self.is_dead = False
        self.is_listed = False
        self.is_paused = False
        self._tasks: dict[_Task, None] = {}

    def next_number(self) -> int:
        return self._scheduler.next_number()

    @property
    def open_tasks(self) -> list[asyncio.Task[Any]]:
        return [each for each in self._tasks if not each.done()]

    def die(self) -> None:
        """Nothing runs here any more. Coroutines are closed one by one, so that neither a garbage
        collector nor a `finally` decides anything."""
        self.is_dead = True
        self.ready.clear()
        with self._scheduler.inside(self), warnings.catch_warnings():
            # Of a task that has not begun, anyio keeps the coroutine where nobody can close it.
            warnings.simplefilter("ignore", RuntimeWarning)
            for task in [each for each in self._tasks if not each.done()]:
                _close(task)
        self._tasks.clear()
        self.ready.clear()

    # What asyncio's primitives use

    def time(self) -> float:
        return self._scheduler.now

    def call_soon(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        handle = _Handle(self, callback, args, context)
        self._scheduler.make_ready(self, handle)
        return cast("asyncio.Handle", handle)

    def call_soon_threadsafe(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._scheduler.now + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = _Handle(self, callback, args, context, when)
        self._scheduler.add_timer(when, handle)
        return cast("asyncio.TimerHandle", handle)

    def create_future(self) -> asyncio.Future[Any]:
        return _Future(self)

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
        **_: object,
    ) -> asyncio.Task[T]:
        task = _Task(cast("Coroutine[Any, Any, Any]", coro), self, name, context)
        self._tasks[task] = None
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(cast("_Task", task), None)

    def get_task_factory(self) -> None:
        return None

    def run_in_executor(
        self, executor: Any, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """At once and here, whatever the executor: a simulation has one thread."""
        del executor
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: Mapping[str, Any]) -> None:
        if self.is_dead:
            return
        error = context.get("exception")
        self.errors.append(f"{context.get('message')}: {error!r}")

    def default_exception_handler(self, context: Mapping[str, Any]) -> None:
        self.call_exception_handler(context)


def _refuse(name: str) -> Callable[..., NoReturn]:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise OutsideSimulationError(
            f"`{name}` was called in a simulation, which has no sockets, signals or processes. "
            f"Stub the step that does it."
        )

    return refuse


_OUTSIDE = """
    add_reader add_signal_handler add_writer connect_accepted_socket connect_read_pipe
    connect_write_pipe create_connection create_datagram_endpoint create_server
    create_unix_connection create_unix_server getaddrinfo getnameinfo remove_reader
    remove_signal_handler remove_writer sendfile sock_accept sock_connect sock_recv
    sock_recv_into sock_recvfrom sock_recvfrom_into sock_sendall sock_sendfile sock_sendto
    start_tls subprocess_exec subprocess_shell set_default_executor run_forever
    run_until_complete stop close set_debug set_exception_handler set_task_factory
    shutdown_asyncgens shutdown_default_executor get_exception_handler
"""
for _name in _OUTSIDE.split():
    setattr(ProcessLoop, _name, _refuse(_name))
ProcessLoop.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]


class Scheduler:
    """Runs callbacks of processes, and events of the world between them, in an order of the seed.

    `checkpoint` is called between two callbacks once as many have run as it asked for last.
    `skipped` are seconds on the clocks on the wall that nobody has lived through.
    """

    def __init__(self, random: Random, *, start: float = 0.0) -> None:
        self.now = start
        self.skipped = 0.0
        self.callbacks = 0
        self.pause_at = 1 << 60
        self.checkpoint: Callable[[ProcessLoop], None] = _nothing
        self._random = random
        self._runnable: list[ProcessLoop] = []
        self._timers: list[tuple[float, int, _Handle]] = []
        self._count = 0

    def next_number(self) -> int:
        self._count += 1
        return self._count

    def make_ready(self, loop: ProcessLoop, handle: _Handle) -> None:
        if loop.is_dead:
            return
        loop.ready.append(handle)
        if not loop.is_listed and not loop.is_paused:
            loop.is_listed = True
            self._runnable.append(loop)

    def resume(self, loop: ProcessLoop) -> None:
        loop.is_paused = False
        if loop.ready and not loop.is_listed and not loop.is_dead:
            loop.is_listed = True
            self._runnable.append(loop)

    def add_timer(self, when: float, handle: _Handle) -> None:
        self._count += 1
        heappush(self._timers, (when, self._count, handle))

    def call_at(self, when: float, event: Callable[..., object], *args: object) -> None:
        """An event of the world: it runs at that time, whatever the processes do."""
        self.add_timer(when, _Handle(None, event, args, _NO_CONTEXT, when))

    def run(self, is_done: Callable[[], bool], *, until: float) -> bool:
        """Run until `is_done` (asked whenever time passes); False if `until` comes before."""
        runnable, random = self._runnable, self._random
        with self._outside():
            while True:
                if runnable:
                    index = int(random.random() * len(runnable)) if len(runnable) > 1 else 0
                    loop = runnable[index]
                    self._run_some(loop, 1 + int(random.random() * 8))
                    if not loop.ready or loop.is_paused:
                        loop.is_listed = False
                        runnable.remove(loop)
                elif is_done():
                    return True
                elif not self._pass_time(until):
                    return False

    def _run_some(self, loop: ProcessLoop, count: int) -> None:
        ready = loop.ready
        events._set_running_loop(loop)
        while ready and count:
            handle = ready.popleft()
            if handle.is_cancelled:
                continue
            count -= 1
            self.callbacks += 1
            try:
                handle.context.run(handle.fn, *handle.args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                loop.call_exception_handler({"message": "a callback failed", "exception": error})
            if self.callbacks >= self.pause_at:
                self.checkpoint(loop)
                if loop.is_paused:
                    return

    def _pass_time(self, until: float) -> bool:
        """Go to the next instant at which something is due, and do it."""
        timers = self._timers
        while timers:
            when, _, handle = timers[0]
            if handle.is_cancelled or (handle.loop is not None and handle.loop.is_dead):
                heappop(timers)
                continue
            if when > until:
                break
            heappop(timers)
            self.now = max(self.now, when)
            if handle.loop is None:
                events._set_running_loop(None)
                handle.fn(*handle.args)
            else:
                self.make_ready(handle.loop, handle)
            return True
        self.now = until
        return False

    @contextmanager
    def inside(self, loop: ProcessLoop) -> Generator[None]:
        """Make this loop the running one, from wherever that is wanted."""
        before = events._get_running_loop()
        events._set_running_loop(loop)
        try:
            yield
        finally:
            events._set_running_loop(before)

    @contextmanager
    def _outside(self) -> Generator[None]:
        """Leave the loop and the task that called the simulation, if any, alone."""
        host = events._get_running_loop()
        task = asyncio.current_task(host) if host is not None else None
        hooks = sys.get_asyncgen_hooks()
        if host is not None and task is not None:
            asyncio.tasks._leave_task(host, task)
        sys.set_asyncgen_hooks(firstiter=None, finalizer=None)
        try:
            yield
        finally:
            sys.set_asyncgen_hooks(*hooks)
            events._set_running_loop(host)
            if host is not None and task is not None:
                asyncio.tasks._enter_task(host, task)


_NO_CONTEXT = contextvars.Context()


def _nothing(loop: ProcessLoop) -> None:
    """No checkpoint is wanted."""


def _close(task: asyncio.Task[Any]) -> None:
    """From the inside out: a coroutine that awaits in a `finally` block would be left half closed
    by its caller, for the garbage collector to find."""
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    outermost = cast("Coroutine[Any, Any, Any]", task.get_coro())
    for _ in range(1_000):
        innermost = _innermost(outermost)
        try:
            innermost.close()
        except BaseException:
            continue  # it awaited or raised in a finally block: ask again
        if innermost is outermost:
            return


def _innermost(coro: Any) -> Any:
    while True:
        awaited = getattr(coro, "cr_await", None)
        if awaited is None:
            awaited = getattr(coro, "gi_yieldfrom", None)
        if getattr(awaited, "cr_frame", None) is None and (
            getattr(awaited, "gi_frame", None) is None
        ):
            return coro
        coro = awaited
