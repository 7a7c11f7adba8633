"""The distribution's packages, installed without starting what is in them."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from tests.servers.faults import ServerUnavailableError

T = TypeVar("T")

APT_OPTIONS = (
    *("-o", "DPkg::Lock::Timeout=300"),
    *("-o", "Acquire::http::Timeout=60", "-o", "Acquire::https::Timeout=60"),
)
APT_COMMANDS = (
    ("apt-get", "-q", *APT_OPTIONS, "update"),
    ("apt-get", "-qy", *APT_OPTIONS, "install", "--no-install-recommends"),
)
APT_SECONDS = 900
POLICY = Path("/usr/sbin/policy-rc.d")


def found_or_installed(find: Callable[[], T | None], *, package: str, missing: str) -> T:
    """What `find` finds, if need be after an installation, where that is possible without asking
    anybody. Raises `ServerUnavailableError`, with `missing` where it is not."""
    if found := find():
        return found
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise ServerUnavailableError(missing)
    problem = install_package(package, is_there=lambda: find() is not None)
    if found := find():
        return found
    raise ServerUnavailableError(
        f"{missing}\nIt was tried: {problem or 'the package came without what the tests need'}"
    )


def install_package(
    package: str, *, is_there: Callable[[], bool], policy: Path | None = None
) -> str | None:
    """Install it without starting its service; returns what went wrong.

    Two sessions may ask at once: a lock lets the second find the work done.
    """
    policy = policy or POLICY
    update, install = APT_COMMANDS
    with ExitStack() as stack:
        stack.enter_context(_one_at_a_time(policy.parent))
        if is_there():
            return None
        stack.enter_context(_no_service_starts(policy))
        for command in (update, (*install, package)):
            if problem := _problem_of(command):
                return problem
    return None


def _problem_of(command: tuple[str, ...]) -> str | None:
    shown = f"`{' '.join(command)}`"
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=APT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return f"{shown} took longer than {APT_SECONDS} seconds"
    return f"{shown} failed and said:\n{done.stdout[-2000:]}" if done.returncode else None


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextmanager
def _no_service_starts(policy: Path) -> Iterator[None]:
    if policy.exists():
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink()
