"""A broker that takes back what is unanswered for ten seconds, an operator, and workers."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import anyio
from msgspec import Struct
from msgspec.json import decode

from durable_worker.client.broker import BrokerPort
from durable_worker.client.client import Client
from durable_worker.protocol.names import Names
from durable_worker.transports.rabbitmq import RabbitTransport
from tests.broker import BrokerNode
from tests.integration.long_work.app import JOURNAL

BROKER_LIMIT = 10.0
"""Seconds after which the broker takes a message back."""

WORK = 40.0

SETTINGS = {
    "consumer_timeout": str(round(BROKER_LIMIT * 1000)),
    # The broker looks at the age of messages at this tick only: by default once in a minute.
    "channel_tick_interval": "1000",
}

ROOT = Path(__file__).parents[3]
APP = "tests.integration.long_work.app"
PATIENCE = 120.0

COUNTED_EVERY = 5.0
"""Seconds between two counts that a broker makes of a queue's messages."""


T = TypeVar("T")


class Entry(Struct, frozen=True):
    what: str
    key: str
    pid: int
    at: float


class House:
    """Use it as a context manager; it ends what is still running."""

    def __init__(self, node: BrokerNode, folder: Path) -> None:
        self.node = node
        self.names = Names()
        self._folder = folder
        self._journal = folder / "journal"
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self._start("operator", "operator", "--database", str(self._folder / "operator.db"))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in reversed(self._processes):
            if process.poll() is None:
                process.kill()
            process.wait()

    def worker(self, name: str, *options: str, url: str | None = None) -> "subprocess.Popen[bytes]":
        return self._start(f"worker-{name}", "run", f"{APP}:{name}", *options, url=url)

    def stop_all(self) -> list[int]:
        """Workers before the operator; the exit codes of those that were alive."""
        alive = [process for process in self._processes if process.poll() is None]
        codes: list[int] = []
        for process in reversed(alive):
            process.send_signal(signal.SIGTERM)
            codes.append(process.wait(60))
        return codes

    async def outcome(self, workflow: str, seconds: float, *, run_id: str) -> object:
        """Start a run and wait for its output. Raises the error with which it failed."""
        port = BrokerPort(RabbitTransport(self.node.url(), names=self.names), names=self.names)
        async with Client(port) as client:
            await client.start(workflow, seconds, run_id=run_id)
            with anyio.fail_after(PATIENCE):
                run = await client.wait(run_id)
        assert run.error is None, run.error
        return json.loads(bytes(run.output))

    def entries(self, run_id: str = "") -> list[Entry]:
        if not self._journal.exists():
            return []
        lines = self._journal.read_bytes().splitlines()
        entries = [decode(line, type=Entry) for line in lines]
        return [entry for entry in entries if entry.key.startswith(f"{run_id}:" if run_id else "")]

    def counts(self, run_id: str) -> Counter[str]:
        """How often its steps began and came to their end."""
        return Counter(entry.what for entry in self.entries(run_id))

    async def entry(self, what: str, run_id: str, *, nth: int = 1) -> Entry:
        """The nth entry of a kind of that run, once it is there."""

        async def found() -> Entry | None:
            entries = [each for each in self.entries(run_id) if each.what == what]
            return entries[nth - 1] if len(entries) >= nth else None

        return await until(found, f"{what} of {run_id}")

    def messages(self) -> dict[str, int]:
        """The queues that are not empty."""
        lines = self.node.ctl("list_queues", "name", "messages", "--no-table-headers").splitlines()
        counts = {name: int(count) for name, count in (line.split("\t") for line in lines if line)}
        return {name: count for name, count in counts.items() if count}

    def messages_at_last(self) -> dict[str, int]:
        """The same once the broker, which counts every five seconds, has counted again."""
        counted_anew = time.monotonic() + 3 * COUNTED_EVERY
        while (counts := self.messages()) and time.monotonic() < counted_anew:
            time.sleep(0.2)
        return counts

    def queues(self) -> list[str]:
        lines = self.node.ctl("list_queues", "name", "--no-table-headers").splitlines()
        return [line.strip() for line in lines if line.strip()]

    def said(self, name: str) -> str:
        return "".join(path.read_text() for path in sorted(self._folder.glob(f"{name}*.log")))

    def _start(self, name: str, *words: str, url: str | None = None) -> "subprocess.Popen[bytes]":
        log = self._folder / f"{name}-{len(self._processes)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "durable_worker", *words, "--log-format", "json"],
                cwd=ROOT,
                env={
                    **os.environ,
                    JOURNAL: str(self._journal),
                    "DURABLE_BROKER_URL": url or self.node.url(),
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self._processes.append(process)
        return process


async def until(look: Callable[[], Awaitable[T | None]], what: str) -> T:
    with anyio.move_on_after(PATIENCE):
        while True:
            if (found := await look()) is not None:
                return found
            await anyio.sleep(0.05)  # other processes tell no event
    raise AssertionError(f"{what} did not come within {PATIENCE:g} s")
