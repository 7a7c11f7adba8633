"""Keeps one child process running, and starts it anew when a source file changes."""

import asyncio
import os
import sys
from asyncio.subprocess import Process
from collections.abc import Coroutine, Iterable
from pathlib import Path
from typing import Any

from watchfiles import PythonFilter, awatch  # pyright: ignore[reportUnknownVariableType]

from durable_worker.cli.options import DEV_DATABASE_VARIABLE, LIFELINE_VARIABLE, Dev
from durable_worker.cli.serving import Server, StopSignals, tell

_PATIENCE = 10.0
"""Seconds until a child that does not end is killed; its state is in the database."""


def prepare(options: Dev) -> Server:
    return _Watcher(options).run()


class _Watcher:
    def __init__(self, options: Dev) -> None:
        self._command = child_command(options)
        self._told = child_environment(options)
        self._roots = _roots(options.target)
        self._stop = asyncio.Event()
        self._changed = asyncio.Event()
        self._child: Process | None = None

    async def run(self) -> None:
        reading_end, writing_end = os.pipe()
        try:
            with StopSignals(self._end):
                async with asyncio.TaskGroup() as group:
                    watching = group.create_task(self._watch())
                    await self._keep_running(reading_end)
                    self._stop.set()
                    watching.cancel()
        finally:
            os.close(reading_end)
            os.close(writing_end)

    async def _keep_running(self, lifeline: int) -> None:
        while not self._stop.is_set():
            self._changed.clear()
            child = self._child = await asyncio.create_subprocess_exec(
                *self._command,
                pass_fds=[lifeline],
                env={**os.environ, **self._told, LIFELINE_VARIABLE: str(lifeline)},
            )
            await _first_of(child.wait(), self._changed.wait(), self._stop.wait())
            if child.returncode is not None and not self._stop.is_set():
                tell(
                    f"ended with exit code {child.returncode}; waiting for a change to start again"
                )
                await _first_of(self._changed.wait(), self._stop.wait())
            elif not self._stop.is_set():
                child.terminate()
            await self._ended(child)

    async def _ended(self, child: Process) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                await child.wait()
        except TimeoutError:
            child.kill()
            await child.wait()

    async def _watch(self) -> None:
        async for changes in awatch(
            *self._roots, watch_filter=PythonFilter(), stop_event=self._stop
        ):
            if not self._changed.is_set():
                tell(f"{_listed(path for _, path in changes)} changed, starting again")
                self._changed.set()

    def _end(self, _is_hurrying: bool) -> None:
        self._stop.set()
        child = self._child
        if child is not None and child.returncode is None:
            child.terminate()  # on a terminal it has had the same signal; it counts them as one


def child_command(options: Dev) -> list[str]:
    """The command line of the process that does the work."""
    command = [sys.executable, "-m", "durable_worker", "dev", options.target, "--no-reload"]
    command += ["--log-format", options.log_format]
    if isinstance(options.database, Path):
        command += ["--db", str(options.database)]
    if options.determinism is not None:
        command += ["--determinism", options.determinism]
    if options.max_message_bytes is not None:
        command += ["--max-message-bytes", str(options.max_message_bytes)]
    return [*command, "--debug"] if options.debug else command


def child_environment(options: Dev) -> dict[str, str]:
    """What others must not see, unlike a command line."""
    where = options.database
    return {} if isinstance(where, Path) else {DEV_DATABASE_VARIABLE: where.url}


def _roots(target: str) -> list[Path]:
    """The current directory, and that of the target if it is a file elsewhere."""
    here = Path.cwd()
    file = Path(target.partition(":")[0])
    elsewhere = file.suffix == ".py" and not file.resolve().is_relative_to(here)
    return [here, file.resolve().parent] if elsewhere and file.parent.is_dir() else [here]


def _listed(paths: Iterable[str]) -> str:
    here = Path.cwd()
    names = sorted(
        str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
        for path in map(Path, paths)
    )
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


async def _first_of(*coroutines: Coroutine[Any, Any, object]) -> None:
    tasks = [asyncio.ensure_future(each) for each in coroutines]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
