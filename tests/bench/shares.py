"""Processes that get a part of a core and no more, so that one machine stands for several."""

import os
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.bench.figures import UnavailableError

PERIOD_US = 20_000
_V1, _V2 = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")


@contextmanager
def confined(pids: Iterable[int], *, cores: float) -> Generator[None]:
    """Each of these processes gets so much CPU at the most, with all its threads.

    Raises `UnavailableError` where this user may make no control groups.
    """
    home = _V1 if (_V1 / "cpu.cfs_quota_us").exists() else _V2
    quota = int(cores * PERIOD_US)
    groups: list[Path] = []
    try:
        try:
            for pid in pids:
                group = home / f"bench-{os.getpid()}-{pid}"
                group.mkdir()
                groups.append(group)
                if home == _V1:
                    (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
                    (group / "cpu.cfs_quota_us").write_text(str(quota))
                else:
                    (group / "cpu.max").write_text(f"{quota} {PERIOD_US}")
                (group / "cgroup.procs").write_text(str(pid))
        except OSError as error:
            raise UnavailableError(f"no control group for CPU can be made: {error}") from error
        yield
    finally:
        for group in groups:
            with suppress(OSError):
                for pid in (group / "cgroup.procs").read_text().split():
                    with suppress(OSError):
                        (home / "cgroup.procs").write_text(pid)
                group.rmdir()
