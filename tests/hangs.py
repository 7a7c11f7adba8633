"""A test that hangs costs itself, not the session.

After its `timeout` (pytest-timeout: the default or its mark) all stacks are printed and the test
fails. What resists even that, and what hangs while fixtures close, ends the process: a session of
many processes goes on with a new one. SIGTERM says which tests ran.
"""

import asyncio
import faulthandler
import os
import signal
import sys
import time
import traceback
from collections.abc import Generator
from types import FrameType
from typing import Any, Protocol

import pytest
from xdist.remote import Producer
from xdist.scheduler.loadfile import LoadFileScheduling
from xdist.workermanage import WorkerController

CLOSING_SECONDS = 120.0
"""For all that closes after a test, and what a test gets that was told to end."""
INTERRUPTED_SECONDS = 20


class TestHangsError(BaseException):
    """Raised in the test. Nothing may take it for a failure of what it calls: Hypothesis would look
    for a smaller example, which hangs as well."""


RUNNERS = tuple(f"/site-packages/{name}/" for name in ("_pytest", "pluggy", "execnet", "xdist"))
"""Packages whose frames say nothing about a test."""


class TimeoutSettings(Protocol):
    timeout: float


class OncePerTest(LoadFileScheduling):
    """A test whose process ended has failed. xdist would run it again, in process after process."""

    def remove_node(self, node: WorkerController) -> str | None:
        for tests in self.assigned_work[node].values():
            for test, is_done in tests.items():
                if not is_done:
                    tests[test] = True
                    super().remove_node(node)
                    return test
        return super().remove_node(node)


class Watch:
    def __init__(self) -> None:
        # While nothing is captured yet, and kept when pytest closes its own.
        assert sys.__stderr__ is not None
        self._terminal = os.fdopen(os.dup(sys.__stderr__.fileno()), "w")
        self._running: dict[str, float] = {}

    @pytest.hookimpl
    def pytest_sessionstart(self) -> None:
        """End on SIGTERM as on Ctrl-C: what the fixtures opened is closed, unless that hangs."""

        def interrupt(*_: object) -> None:
            self._say(f"terminated while it ran: {', '.join(self._ages()) or 'no test'}")
            faulthandler.dump_traceback(self._terminal)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(INTERRUPTED_SECONDS)
            raise KeyboardInterrupt

        signal.signal(signal.SIGTERM, interrupt)
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            # So a shell starts what it puts into the background, and processes inherit it: those
            # that a test starts would not heed Ctrl-C.
            signal.signal(signal.SIGINT, signal.default_int_handler)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._running[nodeid] = time.monotonic()

    @pytest.hookimpl
    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._running.pop(nodeid, None)

    @pytest.hookimpl
    def pytest_timeout_set_timer(self, item: pytest.Item, settings: TimeoutSettings) -> bool:
        """Instead of pytest-timeout's own: that leaves the loop of an async fixture in a state in
        which its end hangs, and does not tell what the tasks wait for."""
        if item.config.getoption("usepdb"):
            return True

        def tell_to_end(_: int, frame: FrameType | None) -> None:
            stacks = _stacks(frame)
            item.add_report_section("call", "stacks", stacks)
            self._say(f"{item.nodeid} hangs, after {settings.timeout:g} seconds here:\n{stacks}")
            _end(f"the test hangs: it had {settings.timeout:g} seconds")

        signal.signal(signal.SIGALRM, tell_to_end)
        signal.setitimer(signal.ITIMER_REAL, settings.timeout)
        self._bound(settings.timeout + CLOSING_SECONDS)
        return True

    @pytest.hookimpl
    def pytest_timeout_cancel_timer(self, item: pytest.Item) -> bool:
        """Also called when a test has failed, before its fixtures close."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        return True

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self) -> Generator[None]:
        # pytest takes the bound away when a test fails.
        self._bound(CLOSING_SECONDS)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Up to the end of the interpreter, which waits for threads."""
        self._bound(CLOSING_SECONDS)

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self, config: pytest.Config) -> None:
        # One of many processes stays until xdist ends it, which has a bound.
        if hasattr(config, "workerinput"):
            faulthandler.cancel_dump_traceback_later()

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(
        self, config: pytest.Config, log: Producer
    ) -> OncePerTest | None:
        return OncePerTest(config, log) if config.getoption("dist") == "loadfile" else None

    def _bound(self, seconds: float) -> None:
        faulthandler.dump_traceback_later(seconds, file=self._terminal, exit=True)

    def _ages(self) -> list[str]:
        now = time.monotonic()
        return [f"{test} (for {now - start:.0f} s)" for test, start in self._running.items()]

    def _say(self, text: str) -> None:
        print(f"\n{text}", file=self._terminal, flush=True)


def watch(config: pytest.Config) -> None:
    config.pluginmanager.register(Watch())


def _end(reason: str) -> None:
    """Raise where the test is, or cancel what the loop runs if it waits for something."""
    loop = _running_loop()
    if loop is None or asyncio.current_task(loop) is not None:
        raise TestHangsError(reason)
    for task in asyncio.all_tasks(loop):
        loop.call_soon_threadsafe(task.cancel, reason)


def _stacks(frame: FrameType | None) -> str:
    """Of this thread, of the tasks of its loop, and of the other threads."""
    parts = ["the main thread:\n", *_told(frame)]
    loop = _running_loop()
    for task in asyncio.all_tasks(loop) if loop else ():
        parts += [f"task {task.get_name()}:\n", *_stack_of(task.get_coro())]
    ours = sys._getframe()
    for thread, other in sys._current_frames().items():
        if other is not ours:
            parts += [f"thread {thread}:\n", *_told(other)]
    return "".join(parts)


def _told(frame: FrameType | None) -> list[str]:
    frames = traceback.extract_stack(frame)
    return traceback.format_list(
        [each for each in frames if not any(runner in each.filename for runner in RUNNERS)]
    )


def _stack_of(awaited: Any) -> list[str]:
    """Down to what the innermost coroutine awaits: a task knows its outermost frame only."""
    lines: list[str] = []
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None:
            lines += traceback.format_stack(frame, limit=1)
        inner = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
        if inner is None and frame is None:
            lines.append(f"  awaits {awaited!r}\n")
        awaited = inner
    return lines


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
