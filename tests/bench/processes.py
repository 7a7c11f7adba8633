"""Programs under measurement: started, watched through /proc, ended with all their children."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.bench.environments import ROOT
from tests.bench.figures import UnavailableError

TICK = os.sysconf("SC_CLK_TCK")
MEGABYTE = 1024 * 1024


def environment(**more: str) -> dict[str, str]:
    """As an installed program runs: with its bytecode cached, and with its own packages alone."""
    hidden = ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH")
    return {name: value for name, value in os.environ.items() if name not in hidden} | more


class Program:
    """One process and what descends from it."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        cwd: Path = ROOT,
        env: Mapping[str, str] | None = None,
        stdin: int | None = subprocess.DEVNULL,
        stdout: int | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.command = [str(part) for part in command]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            self.command,
            cwd=cwd,
            env=environment() if env is None else dict(env),
            stdin=stdin,
            stdout=self._log if stdout is None else stdout,
            stderr=self._log,
            pass_fds=pass_fds,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self.process.pid

    def cpu_seconds(self) -> float:
        """Spent so far by this process and its descendants, those that have ended included."""
        return cpu_of_family(self.pid)

    def rss_megabytes(self) -> float:
        """Resident now, all processes together."""
        return sum(_status_of(pid, "VmRSS") for pid in family_of(self.pid))

    def peak_megabytes(self) -> float:
        """The most that was ever resident, summed over the processes that still run."""
        return sum(_status_of(pid, "VmHWM") for pid in family_of(self.pid))

    def require_running(self) -> None:
        """Raises `UnavailableError` with what the program said last."""
        if self.process.poll() is not None:
            raise UnavailableError(
                f"{' '.join(self.command[:4])} ended with status {self.process.returncode}: "
                f"{self.said()}"
            )

    def wait_until(self, is_so: Callable[[], bool], *, seconds: float, what: str) -> None:
        """Asks again and again. Raises `TimeoutError`, or `UnavailableError` if it ended."""
        deadline = time.monotonic() + seconds
        while not is_so():
            self.require_running()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} did not happen within {seconds:g} s: {self.said()}")
            time.sleep(0.02)

    def said(self, characters: int = 600) -> str:
        """The end of what it wrote."""
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - characters))
        return self._log.read().decode(errors="replace").strip() or "it said nothing"

    def stop(self, *, seconds: float = 15.0) -> None:
        """Asks it to end; kills what is left of its session."""
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()
        self._log.close()


def cpu_of_family(pid: int) -> float:
    """Seconds that it and what descends from it have spent so far."""
    return sum(_cpu_of(each) for each in family_of(pid))


def family_of(pid: int) -> list[int]:
    """This process and all that descend from it."""
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and (fields := _stat_of(int(entry))):
            parents[int(entry)] = int(fields[1])
    family = [pid]
    for member in family:  # grows while it is walked
        family += [child for child, parent in parents.items() if parent == member]
    return family


def _stat_of(pid: int) -> list[str]:
    """The fields after the name of the program, which may hold anything; none if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _cpu_of(pid: int) -> float:
    """Its own time in user and system mode, and that of the children that it has waited for."""
    return sum(int(ticks) for ticks in _stat_of(pid)[11:15]) / TICK


def _status_of(pid: int, name: str) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(line.split()[1]) * 1024 / MEGABYTE for line in lines if line.startswith(name))
