"""A disk that a test can fill: a small tmpfs, or where that cannot be mounted a limit on files."""

import os
import resource
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

SIZE_KIB = 64_000


class SmallDisk:
    """Use as a context manager; `path` is a directory on it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_mounted = False

    def __enter__(self) -> "SmallDisk":
        self.path.mkdir()
        if os.geteuid() == 0:
            mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_KIB}k", "tmpfs", str(self.path)]
            self.is_mounted = (
                subprocess.run(mount, capture_output=True, check=False).returncode == 0
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_mounted:
            # For whoever looks for the cause of a failure.
            self.free([])
            shutil.copytree(self.path, self.path.with_name("disk-at-the-end"))
            subprocess.run(["umount", "--lazy", str(self.path)], check=True)

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
