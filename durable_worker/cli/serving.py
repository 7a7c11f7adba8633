"""A process that serves until it is told to stop."""

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Self

_SAME_STOP = 0.3
"""Seconds in which signals count as one: a terminal and a parent process may both send it."""

_KILLED = 130

_YOUNG_OBJECTS = 10_000
"""Of a hundred steps at work there are always more than the 700 after which Python would look for
garbage again and again, and find that all of it is in use."""

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


Server = Coroutine[Any, Any, None]


class StopSignals:
    """The first SIGTERM or SIGINT asks to stop, the second to hurry, the third ends the process.

    `stop` is called on the event loop, with whether to hurry.
    """

    def __init__(self, stop: Callable[[bool], None]) -> None:
        self._stop = stop
        self._loop = asyncio.get_running_loop()
        self._count = 0
        self._last = 0.0

    def __enter__(self) -> Self:
        for each in _SIGNALS:
            self._loop.add_signal_handler(each, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for each in _SIGNALS:
            self._loop.remove_signal_handler(each)

    def _receive(self) -> None:
        now = self._loop.time()
        if self._count and now - self._last < _SAME_STOP:
            return
        self._count += 1
        self._last = now
        if self._count > 2:
            # A step in a thread cannot be cancelled, and the interpreter would wait for it.
            os._exit(_KILLED)
        self._stop(self._count > 1)


def run_server(prepare: Callable[[], Server]) -> int:
    """Prepare and serve; the exit code, which is 0 also where a signal comes too early to drain."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        asyncio.run(prepare())
    return 0


def settle_memory() -> None:
    """What is loaded now stays: collections pass over it, and come rarely enough for a server."""
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)
    gc.enable()


def tell(text: str) -> None:
    """Say something to the person at the terminal."""
    print(text, file=sys.stderr, flush=True)
