"""Where RabbitMQ's programs are on this machine, and how to get them."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.broker.faults import BrokerUnavailableError

# Debian puts wrappers on the PATH that refuse every user but root and rabbitmq, and that change
# the user and the HOME; the scripts behind them do neither.
SCRIPT_FOLDERS = (
    Path("/usr/lib/rabbitmq/bin"),
    Path("/opt/rabbitmq/sbin"),
    Path("/opt/homebrew/sbin"),
    Path("/usr/local/sbin"),
)
APT_INSTALL = (
    "apt-get",
    "-qy",
    "-o",
    "DPkg::Lock::Timeout=300",
    "install",
    "--no-install-recommends",
)
POLICY = Path("/usr/sbin/policy-rc.d")
EPMD_ROOTS = (Path("/usr/lib"), Path("/usr/local/lib"))
EPMD_PATTERN = "erlang/erts-*/bin/epmd"
NO_BROKER = (
    "no RabbitMQ answers on port {port} and none is installed. Install one (Debian, Ubuntu: "
    "`sudo apt-get install rabbitmq-server`; macOS: `brew install rabbitmq`), or set "
    "DURABLE_BROKER_URL=amqp://user:password@host:5672/ to use another one."
)


@dataclass(frozen=True, slots=True)
class Programs:
    server: str
    ctl: str
    epmd: str


def find_programs() -> Programs | None:
    server, ctl, epmd = _script("rabbitmq-server"), _script("rabbitmqctl"), _epmd()
    return Programs(server, ctl, epmd) if server and ctl and epmd else None


def require_programs(port: int) -> Programs:
    """Find RabbitMQ, or install it where that is possible without asking anybody.

    Raises `BrokerUnavailableError` (`port` is where none answered).
    """
    if programs := find_programs():
        return programs
    if os.geteuid() == 0 and shutil.which("apt-get"):
        install_with_apt()
        if programs := find_programs():
            return programs
    raise BrokerUnavailableError(NO_BROKER.format(port=port))


def install_with_apt(*, policy: Path = POLICY) -> None:
    """Raises `BrokerUnavailableError` with the end of apt's output."""
    problem = install_package(
        "rabbitmq-server", is_there=lambda: find_programs() is not None, policy=policy
    )
    if problem:
        raise BrokerUnavailableError(
            f"there is no RabbitMQ to test against: {problem}. Install rabbitmq-server or set "
            f"DURABLE_BROKER_URL."
        )


def install_package(
    package: str, *, is_there: Callable[[], bool], policy: Path = POLICY
) -> str | None:
    """Install the distribution's package without starting its service; returns what went wrong.

    Two sessions may ask at once: a lock lets the second find the work done.
    """
    with ExitStack() as stack:
        stack.enter_context(_one_at_a_time(policy.parent))
        if is_there():
            return None
        stack.enter_context(_no_service_starts(policy))
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["apt-get", "-q", "update"], [*APT_INSTALL, package]):
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            if done.returncode != 0:
                return f"`{' '.join(command)}` failed and said:\n{done.stdout[-2000:]}"
    return None


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


def _script(name: str) -> str | None:
    for folder in SCRIPT_FOLDERS:
        if os.access(folder / name, os.X_OK):
            return str(folder / name)
    return shutil.which(name)


def _epmd() -> str | None:
    if found := shutil.which("epmd"):
        return found
    for root in EPMD_ROOTS:
        for candidate in sorted(root.glob(EPMD_PATTERN)):
            return str(candidate)
    return None
