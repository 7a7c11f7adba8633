"""A private MariaDB server."""

import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

from tests.servers import (
    PrivateServer,
    Program,
    account_of,
    found_or_installed,
    free_ports,
    made_by,
)

DEFAULT_PORT = 3306
READY = "ready for connections"

MISSING = (
    "no MariaDB and no MySQL answers on port {port} and none is installed. Install one (Debian, "
    "Ubuntu: `sudo apt-get install mariadb-server`; macOS: `brew install mariadb`), or set "
    "DURABLE_TEST_MYSQL_URL=mysql://user@host/database to use another one."
)


@dataclass(frozen=True, slots=True)
class MariadbPrograms:
    install: str
    server: str


def find_mariadb() -> MariadbPrograms | None:
    folders = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    install = shutil.which("mariadb-install-db", path=folders)
    server = shutil.which("mariadbd", path=folders)
    return MariadbPrograms(install, server) if install and server else None


def require_mariadb(port: int) -> MariadbPrograms:
    """Find MariaDB, or install it where that is possible without asking anybody.

    Raises `ServerUnavailableError` (`port` is where none answered).
    """
    missing = MISSING.format(port=port)
    return found_or_installed(find_mariadb, package="mariadb-server", missing=missing)


class MariadbServer(PrivateServer):
    """`options` are added to the command line of what is started next."""

    def __init__(self, *, programs: MariadbPrograms | None = None) -> None:
        self._programs = programs or require_mariadb(DEFAULT_PORT)
        self.port = 0
        self.options: tuple[str, ...] = ()
        super().__init__("the private MariaDB", folder="durable-mariadb-")

    def url(self, database: str = "test", *, user: str = "root") -> str:
        return f"mysql://{user}@127.0.0.1:{self.port}/{database}"

    def prepared(self) -> Program:
        # It refuses to be root.
        account = account_of("mysql", "nobody")
        data = self.home / "data"
        made_by(_making(self._programs.install, data), home=self.home, account=account)
        (self.port,) = free_ports(1)
        return Program(
            (
                *(self._programs.server, "--no-defaults", f"--datadir={data}"),
                *(f"--port={self.port}", "--bind-address=127.0.0.1"),
                *(f"--socket={self.home / 'socket'}", f"--tmpdir={self.home}"),
                *("--innodb-buffer-pool-size=64M", "--performance-schema=OFF"),
                *("--skip-name-resolve", "--lc-messages=en_US", "--pid-file=pid"),
                *self.options,
            ),
            ready=READY,
            account=account,
            stop=signal.SIGTERM,
            kill=signal.SIGKILL,
        )


def _making(install: str, data: Path) -> tuple[str, ...]:
    return (
        *(install, "--no-defaults", f"--datadir={data}"),
        *("--auth-root-authentication-method=normal", "--skip-name-resolve"),
    )
