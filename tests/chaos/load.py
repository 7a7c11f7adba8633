"""Runs of every kind, kept coming, with what must become of each written down before it starts."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import asyncpg

from durable_worker.client.client import Client
from durable_worker.errors import DurableError
from tests.chaos.logbook import Logbook, read_lines
from tests.chaos.reading import Database, rows_of

TERMINAL = ("completed", "failed", "cancelled", "dead")
LOOK_SECONDS = 0.1
RETRY_SECONDS = 0.2


@dataclass(frozen=True)
class Kind:
    """`outcomes` are the notes that a receipt may have, `values` those of its marks, relative to
    the first. `effects` counts the steps, by name, that take effect."""

    workflow: str
    status: str
    values: tuple[int, ...]
    effects: dict[str, int]
    notes: tuple[str, ...] = ("",)
    code: str | None = None
    undone: tuple[int, ...] = ()
    seconds: float = 0.02


SEQUENCE = {"chaos.work": 1, "chaos.flaky": 1, "chaos.note": 1, "chaos.thread": 1}
FAN = {"chaos.work": 4, "chaos.thread": 1}

KINDS = {
    "sequence": Kind("chaos.sequence", "completed", (0, 1, 2, 3), SEQUENCE),
    "fan": Kind("chaos.fan", "completed", (0, 1, 2, 3, 4), FAN),
    "family": Kind(
        "chaos.family",
        "completed",
        (0, 10, 11, 12, 13, 14, 20, 21, 22, 23),
        {"chaos.work": 6, "chaos.flaky": 1, "chaos.note": 1, "chaos.thread": 2},
    ),
    "timers": Kind("chaos.timers", "completed", (0, 1), {"chaos.work": 2}),
    "signal": Kind("chaos.signal", "completed", (0, 77), {"chaos.work": 2}),
    # One of two ways, each with one step.
    "patience": Kind("chaos.patience", "completed", (0,), {"*": 1}, notes=("too late", "in time")),
    "saga": Kind(
        "chaos.saga",
        "failed",
        (),
        {"chaos.work": 2, "chaos.undo": 2},
        code="sold-out",
        undone=(1, 0),
    ),
    "cancelled": Kind(
        "chaos.cancelled", "cancelled", (), {"chaos.work": 1, "chaos.undo": 1}, undone=(0,)
    ),
    "long": Kind(
        "chaos.long", "completed", (0, 1), {"chaos.work": 1, "chaos.thread": 1}, seconds=3.0
    ),
    "gated": Kind("chaos.gated", "completed", (0,), {"chaos.gate": 1}),
}
ORDER = ("sequence", "fan", "signal", "saga", "timers", "cancelled", "family", "patience")
"""The kinds in turn; a long one comes once in a while."""
LONG_EVERY = 12


class Runs:
    """The operators' database as it is, read without them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def statuses(self) -> dict[str, str]:
        """Of all runs; empty while the file cannot be read."""
        return dict(self._read("SELECT id, status FROM runs"))

    def lease_holder(self) -> int | None:
        """Its pid."""
        return next((row[0] for row in self._read("SELECT pid FROM lease")), None)

    def _read(self, query: str) -> Sequence[Any]:
        if isinstance(self._database, Path) and not self._database.exists():
            return []
        try:
            return rows_of(self._database, query)
        except (sqlite3.OperationalError, asyncpg.PostgresError, OSError):
            return []


class Load:
    """Keeps `width` runs going. `ended` counts those that are terminal."""

    def __init__(
        self, client: Client, *, folder: Path, database: Database, random: Random, width: int = 6
    ) -> None:
        self._client = client
        self._expected = Logbook(folder / "expected")
        self._journal = folder / "journal"
        self.runs = Runs(database)
        self._random = random
        self._width = width
        self._started = 0
        self._is_stopping = False
        self._statuses: dict[str, str] = {}
        self._looked = asyncio.Event()
        self._open: set[str] = set()
        self._lanes: list[asyncio.Task[None]] = []
        self.ended = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Runs are started until the block ends or `settled` is called."""
        async with self.looking(), asyncio.TaskGroup() as group:
            self._lanes = [group.create_task(self._lane()) for _ in range(self._width)]
            try:
                yield
            finally:
                for each in self._lanes:
                    each.cancel()

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[None]:
        """See what becomes of runs."""
        async with asyncio.TaskGroup() as group:
            looking = group.create_task(self._look())
            try:
                yield
            finally:
                looking.cancel()

    async def settled(self) -> None:
        """Start no more runs; return when all have ended."""
        self._is_stopping = True
        await asyncio.wait(self._lanes)

    def open_runs(self) -> str:
        """What has not ended, for whoever wonders why."""
        return ", ".join(
            f"{run} {self._statuses.get(run, 'unknown')}" for run in sorted(self._open)
        )

    async def more_ended(self, count: int) -> None:
        """Wait until so many more runs have ended."""
        target = self.ended + count
        while self.ended < target:
            await self._looked.wait()

    async def _look(self) -> None:
        while True:
            self._statuses = await asyncio.to_thread(self.runs.statuses) or self._statuses
            looked, self._looked = self._looked, asyncio.Event()
            looked.set()
            await asyncio.sleep(LOOK_SECONDS)

    async def _until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            await self._looked.wait()

    async def _lane(self) -> None:
        while not self._is_stopping:
            number = self._started + 1
            await self.one("long" if number % LONG_EVERY == 0 else ORDER[number % len(ORDER)])

    async def one(self, name: str) -> None:
        """Start a run of this kind, do what its user does, and return when it has ended."""
        self._started += 1
        run, kind, first = f"{name}-{self._started}", KINDS[name], self._started * 100
        self._expected.write(
            run=run,
            workflow=kind.workflow,
            status=kind.status,
            values=[value if value == 77 else first + value for value in kind.values],
            notes=kind.notes,
            code=kind.code,
            effects=kind.effects,
            undone=[first + value for value in kind.undone],
        )
        order: dict[str, Any] = {"run": run, "first": first, "seconds": kind.seconds}
        self._open.add(run)
        await _insist(lambda: self._client.start(kind.workflow, order, run_id=run))
        match name:
            case "signal":
                await _insist(lambda: self._client.signal(f"go:{run}", 77, signal_id=f"go-{run}"))
            case "patience":
                await asyncio.sleep(self._random.uniform(0, 0.6))
                await _insist(
                    lambda: self._client.signal(f"maybe:{run}", 1, signal_id=f"maybe-{run}")
                )
            case "cancelled":
                await self._until(lambda: self._has_begun(run))
                await _insist(lambda: self._client.cancel(run))
            case _:
                pass
        await self._until(lambda: self._statuses.get(run) in TERMINAL)
        self._open.discard(run)
        self.ended += 1

    def _has_begun(self, run: str) -> bool:
        return any(each["run"] == run for each in read_lines(self._journal))


async def _insist(ask: Callable[[], Awaitable[Any]]) -> None:
    """Ask until it is answered; every question has an id, so it counts once."""
    while True:
        try:
            await ask()
        except DurableError:
            await asyncio.sleep(RETRY_SECONDS)
        else:
            return
