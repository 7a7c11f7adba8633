"""`durable-worker` as it is, under a clock that can be set and with a report of what it leaves.

python -m tests.chaos.process run|operator ...

`CHAOS_CLOCK` names a file of eight bytes: nanoseconds that are added to the time of day, read anew
at every look. `CHAOS_REPORTS` is the directory for the report `<pid>.json`, which is written when
the command has ended by itself: the tasks and threads that were still there.
"""

import asyncio
import ctypes
import json
import mmap
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from struct import Struct
from typing import Any

from durable_worker.cli.app import main

CLOCK, REPORTS = "CHAOS_CLOCK", "CHAOS_REPORTS"
OFFSET = Struct("<q")

_DIE_WITH_PARENT = 1
_LAST_TICKS = 40
"""Looks, 50 ms apart, that a task or thread which has been told to end gets."""


def die_with_parent() -> None:
    """Even a stopped process must not outlive a test session that was killed."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)


def obey_the_clock_in(path: Path) -> None:
    with path.open("rb") as file:
        offset = mmap.mmap(file.fileno(), OFFSET.size, prot=mmap.PROT_READ)
    real_ns: Callable[[], int] = time.time_ns

    def time_ns() -> int:
        (ahead,) = OFFSET.unpack_from(offset)
        return real_ns() + int(ahead)

    time.time_ns = time_ns
    time.time = lambda: time_ns() / 1e9


def report_tasks_into(report: dict[str, Any]) -> None:
    """Note what is left on the loop when its main coroutine is done, before the loop ends it."""
    run = asyncio.run

    async def observed(program: Coroutine[Any, Any, None]) -> None:
        try:
            await program
        finally:
            mine = asyncio.current_task()
            for _ in range(_LAST_TICKS):
                left = [task for task in asyncio.all_tasks() if task is not mine]
                if not left:
                    break
                await asyncio.sleep(0.05)
            report["tasks"] = [repr(task) for task in left]

    def run_observed(program: Coroutine[Any, Any, None], **options: Any) -> None:
        run(observed(program), **options)

    asyncio.run = run_observed  # type: ignore[assignment]


def entry() -> None:
    die_with_parent()
    obey_the_clock_in(Path(os.environ[CLOCK]))
    report: dict[str, Any] = {"pid": os.getpid()}
    report_tasks_into(report)
    try:
        main(sys.argv[1:])
    finally:
        mine = threading.main_thread()
        others = [each for each in threading.enumerate() if each is not mine]
        for each in others:
            each.join(_LAST_TICKS * 0.05)  # one that was told to end does so within an instant
        report["threads"] = [each.name for each in others if each.is_alive()]
        path = Path(os.environ[REPORTS]) / f"{os.getpid()}.json"
        path.write_text(json.dumps(report))


if __name__ == "__main__":
    entry()
