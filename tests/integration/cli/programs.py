"""The real command line, in processes of its own."""

import os
import queue
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from time import monotonic

PATIENCE = 30.0
"""Seconds after which something that should have happened has not."""

APP = """
import asyncio
from datetime import timedelta
from pathlib import Path

from durable_worker import FatalError, StepContext, Worker, WorkflowContext

worker = Worker()


@worker.step("greet")
async def greet(name: str, ctx: StepContext) -> str:
    ctx.info("greeting")
    return f"hello {name}"


@worker.step("refuse")
async def refuse(name: str) -> str:
    raise FatalError(f"{name} is not welcome", code="unwelcome")


@worker.step("linger")
async def linger(seconds: float, ctx: StepContext) -> str:
    Path("lingering").touch()
    for _ in range(round(seconds * 20)):
        ctx.raise_if_cancelled()
        await asyncio.sleep(0.05)
    Path("lingered").touch()
    return "stayed"


@worker.workflow("greeting", version="2")
async def greeting(ctx: WorkflowContext, name: str) -> str:
    return await ctx.step(greet, name)


@worker.workflow("refusing")
async def refusing(ctx: WorkflowContext, name: str) -> str:
    return await ctx.step(refuse, name)


@worker.workflow("lingering")
async def lingering(ctx: WorkflowContext, seconds: float) -> str:
    return await ctx.step(linger, seconds)


@worker.step("tidy")
async def tidy(gate: str) -> None:
    while not Path(gate).exists():
        await asyncio.sleep(0.05)


@worker.workflow("tidying")
async def tidying(ctx: WorkflowContext, gate: str) -> None:
    state = "working"
    ctx.on_query("state", lambda: state)
    try:
        await ctx.wait_signal("never")
    finally:
        state = "tidying"
        await ctx.step(tidy, gate)


@worker.workflow("asking")
async def asking(ctx: WorkflowContext, question: str) -> str:
    return await ctx.wait_signal(question, returns=str)
"""


class Serving:
    """A process that serves; what it says on standard error is read as it comes."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.said: list[str] = []
        Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def wait_for(self, text: str) -> str:
        """The next line with `text` in it."""
        until = monotonic() + PATIENCE
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, until - monotonic()))
            except queue.Empty:
                raise AssertionError(f"{text!r} was not said, only: {self.said}") from None
            assert line is not None, f"ended without saying {text!r}, only: {self.said}"
            self.said.append(line)
            if text in line:
                return line

    def wait_for_end(self) -> None:
        """Until it has said its last."""
        while (line := self._lines.get(timeout=PATIENCE)) is not None:
            self.said.append(line)

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def ended(self) -> int:
        """The exit code, once it has ended."""
        return self._process.wait(PATIENCE)

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()

    @property
    def pid(self) -> int:
        return self._process.pid


class Program:
    """`durable-worker` in a directory of its own, with `app.py` there."""

    def __init__(self, directory: Path, options: tuple[str, ...] = ()) -> None:
        self.directory = directory
        self.options = options

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)

    def run(
        self, *words: str, env: Mapping[str, str] | None = None, given: str | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """What a command did; `given` is its standard input."""
        return subprocess.run(
            self._command(words),
            cwd=self.directory,
            env=_environment(env or {}),
            input=given,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def out(self, *words: str) -> str:
        """What a command that succeeds prints."""
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout.removesuffix("\n")

    @contextmanager
    def serving(self, *words: str, env: Mapping[str, str] | None = None) -> Iterator[Serving]:
        process = subprocess.Popen(
            self._command(words),
            cwd=self.directory,
            env=_environment(env or {}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        serving = Serving(process)
        try:
            yield serving
        finally:
            serving.kill()

    def _command(self, words: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "durable_worker", *words, *self.options]


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DURABLE_")}
    return {**kept, "PYTHONWARNINGS": "error", "PYTHONDONTWRITEBYTECODE": "1", **more}
