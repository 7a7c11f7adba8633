"""A deterministic asyncio event loop: a FIFO of callbacks and a clock that history moves.

It offers what asyncio's own primitives need (tasks, futures, `call_soon`, `call_later`) and nothing
that depends on the outside. Tasks and futures hash by creation number, because `asyncio.wait`,
`as_completed` and `TaskGroup` keep them in sets, and the order of a set of addresses differs from
one process to the next.
"""

import asyncio
import contextvars
import sys
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Mapping
from contextlib import suppress
from typing import Any, NoReturn, Protocol, TypeVar, TypeVarTuple, cast

from msgspec import Struct

from durable_worker.errors import UnsupportedInWorkflowError, WorkflowStuckError
from durable_worker.replay.completion import siblings_in_order

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

MAX_CALLBACKS_WITHOUT_IDLE = 5_000_000
CALLBACKS_TO_UNWIND = 100_000


class TimerHost(Protocol):
    """Makes `call_later` durable."""

    def start_timer(self, timer: "DurableTimer", *, delay: float) -> None: ...
    def timer_cancelled(self, timer: "DurableTimer") -> None: ...


class Callback(Struct, eq=False):
    """The part of `asyncio.Handle` that asyncio's primitives use, without its cost."""

    fn: Callable[..., object]
    args: tuple[Any, ...]
    context: contextvars.Context
    is_cancelled: bool = False

    def cancel(self) -> None:
        self.is_cancelled = True

    def cancelled(self) -> bool:
        return self.is_cancelled


class DurableTimer(Callback, kw_only=True, eq=False):
    """What `call_later` returns: fires when history says that the timer has fired."""

    due: float
    host: TimerHost
    seq: int = -1

    def when(self) -> float:
        return self.due

    def cancel(self) -> None:
        if not self.is_cancelled:
            self.is_cancelled = True
            self.host.timer_cancelled(self)


class NumberedFuture(asyncio.Future[Any]):
    def __init__(self, loop: "DeterministicLoop") -> None:
        loop.count = self.number = loop.count + 1
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.number


class NumberedTask(asyncio.Task[Any]):
    number = 0

    def __init__(
        self,
        coro: Coroutine[Any, Any, Any],
        loop: "DeterministicLoop",
        name: str | None,
        context: contextvars.Context | None,
    ) -> None:
        number = loop.next_number()
        super().__init__(coro, loop=loop, name=name or f"Task-{number}", context=context)
        # Numbered last: asyncio keeps the tasks of all bodies in one set, where equal hashes would
        # be looked through one by one.
        self.number = number

    def __hash__(self) -> int:
        return self.number or object.__hash__(self)


class Entered:
    """Within it a loop is the running one of the current thread, whatever ran there before."""

    __slots__ = ("_hooks", "_host", "_host_task", "_loop")

    def __init__(self, loop: "DeterministicLoop") -> None:
        self._loop = loop

    def __enter__(self) -> None:
        self._host = host = events._get_running_loop()
        self._host_task = None if host is None else asyncio.current_task(host)
        self._hooks = sys.get_asyncgen_hooks()
        if host is not None and self._host_task is not None:
            asyncio.tasks._leave_task(host, self._host_task)
        events._set_running_loop(self._loop)
        sys.set_asyncgen_hooks(self._loop.keep_async_generator, _leave_async_generator)

    def __exit__(self, *_: object) -> None:
        sys.set_asyncgen_hooks(*self._hooks)
        events._set_running_loop(self._host)
        if self._host is not None and self._host_task is not None:
            asyncio.tasks._enter_task(self._host, self._host_task)
        self._host = self._host_task = None  # a body may be kept for long


class DeterministicLoop(asyncio.AbstractEventLoop):
    def __init__(self, host: TimerHost) -> None:
        self._host = host
        self.ready: deque[Callback] = deque()
        self._now = 0.0
        self.count = 0
        self._tasks: list[NumberedTask] = []
        self._prune_at = 1_000
        self._async_generators: list[Any] = []
        self._ordered: dict[Coroutine[Any, Any, Any], NumberedTask] = {}
        self._is_closed = False
        self.unhandled: list[BaseException] = []
        self.entered = Entered(self)

    # What replay uses

    def next_number(self) -> int:
        self.count += 1
        return self.count

    def fire(self, timer: DurableTimer) -> None:
        self._now = max(self._now, timer.due)
        if not timer.is_cancelled:
            self.ready.append(timer)

    def run_until_idle(self, *, budget: int | None = None) -> None:
        """Run callbacks until none is ready; what one raises is kept in `unhandled`.

        Raises `WorkflowStuckError` for a body that keeps itself busy without waiting for anything.
        """
        ready = self.ready
        left = MAX_CALLBACKS_WITHOUT_IDLE if budget is None else budget
        while ready:
            callback = ready.popleft()
            if callback.is_cancelled:
                continue
            try:
                callback.context.run(callback.fn, *callback.args)
            except BaseException as error:  # SystemExit and the like must not end the worker
                self.unhandled.append(error)
            left -= 1
            if left == 0:
                raise WorkflowStuckError(
                    f"the workflow ran {MAX_CALLBACKS_WITHOUT_IDLE:,} callbacks in a row without "
                    f"waiting for a step, timer, signal or child; is it looping on sleep(0)?"
                )

    @property
    def is_over(self) -> bool:
        """Whether nothing is left that `dispose` would have to unwind."""
        if self.ready or self._async_generators:
            return False
        return all(task.done() for task in self._tasks)

    def dispose(self) -> None:
        """End what is left: cancel in creation order, then close coroutines that resist."""
        for task in self._tasks:
            task.cancel()
        with suppress(WorkflowStuckError):
            self.run_until_idle(budget=CALLBACKS_TO_UNWIND)
        for task in self._tasks:
            if not task.done():
                _close(task)
        self._tasks.clear()
        for generator in self._async_generators:
            _finish(generator.aclose())
        self._async_generators.clear()
        self.ready.clear()
        self._is_closed = True

    def keep_async_generator(self, generator: Any) -> None:
        # Held until the end, so that the garbage collector never decides when one is closed.
        alive = (each for each in self._async_generators if each.ag_frame is not None)
        self._async_generators = [*alive, generator]

    # What asyncio's primitives use

    def time(self) -> float:
        return self._now

    def call_soon(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        handle = Callback(
            callback, args, contextvars.copy_context() if context is None else context
        )
        self.ready.append(handle)
        return handle  # type: ignore[return-value]  # pyright: ignore[reportReturnType]

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        timer = DurableTimer(
            callback,
            args,
            contextvars.copy_context() if context is None else context,
            due=self._now + delay,
            host=self._host,
        )
        if delay <= 0:
            self.ready.append(timer)
        else:
            self._host.start_timer(timer, delay=delay)
        return cast("asyncio.TimerHandle", timer)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_later(when - self._now, callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        return NumberedFuture(self)

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
        **_: object,
    ) -> asyncio.Task[T]:
        coroutine = cast("Coroutine[Any, Any, Any]", coro)
        ready_made = self._ordered.pop(coroutine, None)
        if ready_made is not None:
            return ready_made
        siblings = siblings_in_order(coroutine)
        if siblings:
            self._ordered = {each: self._new_task(each, None, None) for each in siblings}
            return self._ordered.pop(coroutine)
        return self._new_task(coroutine, name, context)

    def start(self, body: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """`create_task` for the first of all."""
        return self._new_task(body, name, None)

    def _new_task(
        self,
        coroutine: Coroutine[Any, Any, Any],
        name: str | None,
        context: contextvars.Context | None,
    ) -> NumberedTask:
        task = NumberedTask(coroutine, self, name, context)
        self._tasks.append(task)
        if len(self._tasks) >= self._prune_at:
            self._tasks = [each for each in self._tasks if not each.done()]
            self._prune_at = max(1_000, 2 * len(self._tasks))
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return self._is_closed

    def call_exception_handler(self, context: Mapping[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, BaseException):
            self.unhandled.append(error)

    def default_exception_handler(self, context: Mapping[str, Any]) -> None:
        self.call_exception_handler(context)


def _close(task: NumberedTask) -> None:
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    coro = cast("Coroutine[Any, Any, Any]", task.get_coro())
    for _ in range(100):
        try:
            coro.close()
        except BaseException:
            continue  # it awaited or raised in a finally block: ask again
        return


def _leave_async_generator(generator: object) -> None:
    """Every generator is closed by `dispose`; the collector meets only what is closed."""


def _finish(closing: Coroutine[Any, Any, None]) -> None:
    with suppress(BaseException):
        closing.send(None)
    closing.close()


def _refuse(name: str, instead: str) -> Callable[..., NoReturn]:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise UnsupportedInWorkflowError(
            f"`{name}` cannot be used inside a workflow body, because a replay could not repeat "
            f"it. {instead}"
        )

    return refuse


_DO_IT_IN_A_STEP = "Do it in a step and await that with ctx.step(...)."
_USE_PLAIN_ASYNC = "A body runs on one thread; use plain async code, or a step."

_OUTSIDE = """
    add_reader add_signal_handler add_writer connect_accepted_socket connect_read_pipe
    connect_write_pipe create_connection create_datagram_endpoint create_server
    create_unix_connection create_unix_server getaddrinfo getnameinfo remove_reader
    remove_signal_handler remove_writer sendfile sock_accept sock_connect sock_recv
    sock_recv_into sock_recvfrom sock_recvfrom_into sock_sendall sock_sendfile sock_sendto
    start_tls subprocess_exec subprocess_shell
"""
_THREADS_AND_LOOPS = """
    call_soon_threadsafe run_in_executor set_default_executor run_forever run_until_complete stop
    close set_debug set_exception_handler set_task_factory shutdown_asyncgens
    shutdown_default_executor
"""
for _name in _OUTSIDE.split():
    setattr(DeterministicLoop, _name, _refuse(_name, _DO_IT_IN_A_STEP))
for _name in _THREADS_AND_LOOPS.split():
    setattr(DeterministicLoop, _name, _refuse(_name, _USE_PLAIN_ASYNC))
DeterministicLoop.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]
