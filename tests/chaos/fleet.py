"""Operators and workers in processes of their own, and a supervisor that restarts what dies."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.app import GATE, JOURNAL
from tests.chaos.logbook import Logbook
from tests.chaos.network import Proxy
from tests.chaos.process import CLOCK, OFFSET, REPORTS

ROOT = Path(__file__).parents[2]
RESTART_SECONDS = 0.2
_SERVES = ('"event":"serving"', '"event":"operating"')
STOP_SECONDS = 90.0
"""So long a process gets to end after SIGTERM: far beyond every grace period in these tests."""


@dataclass(eq=False)
class Member:
    """A place that is always taken by a process with this command line, under its own clock.

    `network` leads to the broker, unless the command line goes there directly.
    """

    name: str
    role: str
    words: Sequence[str]
    clock: Path
    network: Proxy | None = None
    is_wanted: bool = False
    is_told: bool = False
    process: asyncio.subprocess.Process | None = None
    keeping: asyncio.Task[None] | None = None
    born: int = 0
    """How many processes there have been."""

    first_pid: int = 0
    log_begins: int = 0
    """Where the log of the process that runs now begins, among those of its predecessors."""

    @property
    def pid(self) -> int | None:
        """Of the process that runs now."""
        process = self.process
        return None if process is None or process.returncode is not None else process.pid

    def signal(self, number: int) -> int | None:
        """Send it; the pid that got it."""
        pid = self.pid
        if pid is not None:
            os.kill(pid, number)
        return pid

    def set_clock(self, *, ahead_seconds: float) -> None:
        with self.clock.open("r+b") as file:
            file.write(OFFSET.pack(int(ahead_seconds * 1e9)))


class Fleet:
    """Use as an async context manager: whatever still runs at the end is killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reports = folder / "reports"
        self.reports.mkdir()
        self.journal = folder / "journal"
        self.gate = folder / "gate"
        self.lives = Logbook(folder / "lives")
        self.members: list[Member] = []

    async def __aenter__(self) -> "Fleet":
        return self

    async def __aexit__(self, *_: object) -> None:
        for member in self.members:
            member.is_wanted = False
            member.signal(signal.SIGKILL)
        keeping = [each.keeping for each in self.members if each.keeping is not None]
        await asyncio.gather(*keeping, return_exceptions=True)

    def add(
        self, name: str, role: str, words: Sequence[str], *, network: Proxy | None = None
    ) -> Member:
        clock = self.folder / f"{name}.clock"
        clock.write_bytes(OFFSET.pack(0))
        member = Member(name, role, words, clock, network)
        self.members.append(member)
        return member

    def of(self, role: str) -> list[Member]:
        return [each for each in self.members if each.role == role and each.is_wanted]

    def start(self, member: Member) -> None:
        member.is_wanted, member.is_told = True, False
        member.keeping = asyncio.create_task(self._keep(member))

    async def stop(self, member: Member) -> int:
        """SIGTERM; its exit code. One that does not end in time is killed.

        One that has just been started is waited for: an interpreter that still imports would die.
        """
        member.signal(signal.SIGCONT)
        await self.said(member, *_SERVES)
        member.is_wanted, member.is_told = False, True
        member.signal(signal.SIGTERM)
        assert member.keeping is not None
        try:
            await asyncio.wait_for(asyncio.shield(member.keeping), STOP_SECONDS)
        except TimeoutError:
            member.signal(signal.SIGKILL)
            await member.keeping
        assert member.process is not None
        assert member.process.returncode is not None
        return member.process.returncode

    async def said(self, member: Member, *texts: str) -> None:
        """Wait until the log of the process that runs now holds one of these."""
        async with asyncio.timeout(STOP_SECONDS):
            while not any(text in self._said_by(member) for text in texts):  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def one_says(self, members: Sequence[Member], *texts: str) -> None:
        """Wait until one of them says one of these, from now on."""
        sizes = {member.name: self.log_of(member).stat().st_size for member in members}
        async with asyncio.timeout(STOP_SECONDS):
            while not any(  # noqa: ASYNC110
                text in self._log(member, after=sizes[member.name])
                for member in members
                for text in texts
            ):
                await asyncio.sleep(0.02)

    def _said_by(self, member: Member) -> str:
        return self._log(member, after=member.log_begins) if member.pid else ""

    def _log(self, member: Member, *, after: int) -> str:
        return self.log_of(member).read_bytes()[after:].decode()

    def log_of(self, member: Member) -> Path:
        return self.folder / f"{member.name}.log"

    async def _keep(self, member: Member) -> None:
        while member.is_wanted:
            began = time.monotonic()
            await self._spawn(member)
            assert member.process is not None
            code = await member.process.wait()
            self.lives.write(
                name=member.name,
                role=member.role,
                pid=member.process.pid,
                began=began,
                ended=time.monotonic(),
                code=code,
                told=member.is_told,
            )
            if member.is_wanted:
                await asyncio.sleep(RESTART_SECONDS)

    async def _spawn(self, member: Member) -> None:
        environment = {
            **os.environ,
            "PYTHONWARNINGS": "error",
            "PYTHONDONTWRITEBYTECODE": "1",
            CLOCK: str(member.clock),
            REPORTS: str(self.reports),
            JOURNAL: str(self.journal),
            GATE: str(self.gate),
        }
        with self.log_of(member).open("ab") as log:
            member.log_begins = log.tell()
            member.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.chaos.process", *member.words),
                cwd=ROOT,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        member.born += 1
        member.first_pid = member.first_pid or member.process.pid
