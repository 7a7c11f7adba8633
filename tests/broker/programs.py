"""Where RabbitMQ's programs are on this machine, and how to get them."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.servers import found_or_installed

# Debian puts wrappers on the PATH that refuse every user but root and rabbitmq, and that change
# the user and the HOME; the scripts behind them do neither.
SCRIPT_FOLDERS = (
    Path("/usr/lib/rabbitmq/bin"),
    Path("/opt/rabbitmq/sbin"),
    Path("/opt/homebrew/sbin"),
    Path("/usr/local/sbin"),
)
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
    """Raises `ServerUnavailableError` (`port` is where none answered)."""
    return found_or_installed(
        find_programs, package="rabbitmq-server", missing=NO_BROKER.format(port=port)
    )


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
