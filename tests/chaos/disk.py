"""A disk that a test can fill: a small tmpfs, or where that cannot be mounted a limit on files."""

import os
import resource
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

SIZE_KIB = 64_000

GUARD = 'trap "" HUP INT TERM; read order; exec umount --lazy "$0"'
"""Takes the disk away when its standard input ends, whatever becomes of the test."""


class SmallDisk:
    """Use as a context manager; `path` is a directory on it."""

    def __init__(self, path: Path, *, may_mount: bool = True) -> None:
        self.path = path
        self._may_mount = may_mount and os.geteuid() == 0
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def is_mounted(self) -> bool:
        return self._guard is not None

    def __enter__(self) -> "SmallDisk":
        self.path.mkdir()
        if self._may_mount:
            mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_KIB}k", "tmpfs", str(self.path)]
            if subprocess.run(mount, capture_output=True, check=False).returncode == 0:
                self._guard = subprocess.Popen(
                    ["sh", "-c", GUARD, str(self.path)],
                    stdin=subprocess.PIPE,
                    start_new_session=True,
                )
        return self

    def __exit__(self, *_: object) -> None:
        if self._guard is None:
            return
        # For whoever looks for the cause of a failure.
        self.free([])
        shutil.copytree(self.path, self.path.with_name("disk-at-the-end"))
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        assert self._guard.wait() == 0

    def fill(self, pids: list[int]) -> None:
        """From now on these processes can write nothing more here."""
        if not self.is_mounted:
            # What is there can still be written over, and the logs, which are smaller, go on.
            size = max(each.stat().st_size for each in self.path.iterdir())
            for pid in pids:
                _limit_files(pid, size)
            return
        with self._ballast.open("ab", buffering=0) as ballast:
            for block in (b"x" * 65_536, b"x" * 512):
                with suppress(OSError):
                    while True:
                        ballast.write(block)

    def free(self, pids: list[int]) -> None:
        if not self.is_mounted:
            for pid in pids:
                _limit_files(pid, resource.RLIM_INFINITY)
            return
        self._ballast.unlink(missing_ok=True)

    @property
    def _ballast(self) -> Path:
        return self.path / "ballast"


def _limit_files(pid: int, size: int) -> None:
    with suppress(ProcessLookupError):
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
