"""Peers, each in an environment of its own under build/bench, kept from one run to the next."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from tests.bench.figures import UnavailableError

ROOT = Path(__file__).parents[2]
PEERS = Path(__file__).parent / "peers"
HOME = ROOT / "build" / "bench"
INSTALL_SECONDS = 300.0
MARK = "installed"


def python_for(peer: str, *, installs: bool) -> Path:
    requirements = PEERS / peer / "requirements.txt"
    home = HOME / peer
    python = home / "bin" / "python"
    wanted = _digest(requirements.read_bytes(), sys.version.encode())
    if _is_marked(home, wanted) and python.exists():
        return python
    _refuse_unless(installs, peer)
    shutil.rmtree(home, ignore_errors=True)
    _install(peer, [sys.executable, "-m", "venv", str(home)])
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    _install(peer, [*pip, "--requirement", str(requirements)])
    (home / MARK).write_text(wanted)
    return python


def node_for(peer: str, *, installs: bool) -> Path:
    source = PEERS / peer
    home = HOME / peer
    wanted = _digest((source / "package-lock.json").read_bytes())
    if not _is_marked(home, wanted):
        _refuse_unless(installs, peer)
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(source / name, home)
        # Not `ci`: it asks for optional packages of other platforms, which not every registry has.
        _install(
            peer,
            ["npm", "install", "--no-save", "--no-audit", "--no-fund", "--loglevel=error"],
            cwd=home,
        )
        (home / MARK).write_text(wanted)
    # Scripts find node_modules from where they are.
    for script in source.iterdir():
        if script.is_file():
            shutil.copy(script, home)
    return home


def _is_marked(home: Path, wanted: str) -> bool:
    mark = home / MARK
    return mark.exists() and mark.read_text() == wanted


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _refuse_unless(installs: bool, peer: str) -> None:
    if not installs:
        raise UnavailableError(f"{peer} is not installed under {HOME.relative_to(ROOT)}")


def _install(peer: str, command: list[str], *, cwd: Path = ROOT) -> None:
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
        )
    except FileNotFoundError:
        raise UnavailableError(f"{peer} needs {command[0]}, which is not on the PATH") from None
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"{peer} was not installed within {INSTALL_SECONDS:g} s") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        raise UnavailableError(f"{peer} cannot be installed: {said[-1]}")
