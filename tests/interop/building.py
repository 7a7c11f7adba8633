"""Node, and the two npm packages of these tests: installed and built when their sources changed."""

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TRANSPORT = ROOT / "protocol" / "nestjs"
OPERATOR = ROOT / "tests" / "interop" / "operator"
NODE_MAJOR = 20
_MADE = frozenset({"node_modules", "dist", "generated"})
_STAMP = ".interop-stamp"


def missing_node() -> str | None:
    """Why the tests cannot run on this machine; None if they can."""
    wanted = f"Node >= {NODE_MAJOR} with npm is needed to run the NestJS operator of these tests"
    if shutil.which("node") is None or shutil.which("npm") is None:
        return f"{wanted}, and it is not on the PATH."
    said = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    if int(said.removeprefix("v").split(".")[0]) < NODE_MAJOR:
        return f"{wanted}; the one on the PATH is {said.strip()}."
    return None


def require_node() -> None:
    """Without Node: a failure in CI, a skip that says what is missing elsewhere."""
    obstacle = missing_node()
    if obstacle is None:
        return
    if os.environ.get("CI"):
        pytest.fail(obstacle, pytrace=False)
    pytest.skip(obstacle)


def build_operator() -> Path:
    """The operator's main module, built from what is there now. Raises `AssertionError`."""
    with _one_at_a_time(OPERATOR):
        _make(TRANSPORT, also=[ROOT / "protocol" / "schemas"])
        _make(OPERATOR, also=[TRANSPORT])
    return OPERATOR / "dist" / "main.js"


def build_transport() -> Path:
    """The main module of the npm package in protocol/nestjs. Raises `AssertionError`."""
    with _one_at_a_time(TRANSPORT):
        _make(TRANSPORT, also=[ROOT / "protocol" / "schemas"])
    return TRANSPORT / "dist" / "index.js"


def _make(package: Path, *, also: list[Path]) -> None:
    manifest = [package / name for name in ("package.json", "package-lock.json", ".npmrc")]
    _unless_fresh(package / "node_modules", manifest, ["npm", "ci"], package)
    _unless_fresh(package / "dist", [package, *also], ["npm", "run", "build"], package)


def _unless_fresh(made: Path, sources: list[Path], command: list[str], folder: Path) -> None:
    stamp = made / _STAMP
    digest = _digest(sources)
    if stamp.exists() and stamp.read_text() == digest:
        return
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    where = folder.relative_to(ROOT)
    assert done.returncode == 0, f"{' '.join(command)} failed in {where}:\n{done.stdout[:4000]}"
    stamp.write_text(digest)


def _digest(sources: list[Path]) -> str:
    total = hashlib.sha256()
    for path in sorted(file for source in sources for file in _files(source)):
        total.update(f"{path.relative_to(ROOT)}\n".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _files(source: Path) -> Iterator[Path]:
    if source.is_file():
        yield source
        return
    for folder, subfolders, names in os.walk(source):
        subfolders[:] = [name for name in subfolders if name not in _MADE]
        yield from (Path(folder) / name for name in names)


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
