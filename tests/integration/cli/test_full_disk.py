"""A disk that is really full: a small tmpfs (mounting one needs root)."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.integration.cli.programs import Program

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")


class SmallDisk:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> None:
        with self._ballast.open("ab", buffering=0) as ballast, suppress(OSError):
            while True:
                ballast.write(b"x" * 512)

    def free(self) -> None:
        self._ballast.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=800k", "tmpfs", str(path)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"this container does not let root mount a small disk: {mounted.stderr}")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.mark.parametrize("command", [("dev", "app:worker", "--no-reload"), ()])
def test_serving_from_a_full_disk_ends_with_one_sentence(
    program: Program, disk: SmallDisk, command: tuple[str, ...]
) -> None:
    with program.serving("dev", "app:worker", "--no-reload", "--db", f"{disk.path}/x.db") as dev:
        dev.wait_for("lease_acquired")
    disk.fill()
    words = command or ("start", "greeting", "--input", '"you"')
    done = program.run(*words, "--db", f"{disk.path}/x.db")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: the disk that holds the database")
    assert "is full" in last
    assert "Traceback" not in done.stderr


def test_a_run_goes_on_once_there_is_room_again(program: Program, disk: SmallDisk) -> None:
    database = ("--db", f"{disk.path}/x.db")
    with program.serving("dev", "app:worker", "--no-reload", *database) as dev:
        dev.wait_for("lease_acquired")
        program.out("start", "lingering", "--input", "1", "--id", "r1", *database)
        disk.fill()
        assert "is full" in dev.wait_for("store_write_failed")
        disk.free()
        done = program.run("start", "lingering", "--input", "1", "--id", "r1", "--wait", *database)
        assert (done.returncode, done.stdout) == (0, '"stayed"\n')
