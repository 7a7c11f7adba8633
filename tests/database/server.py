"""A private PostgreSQL server: own port, own data; gone without a trace."""

import os
import pwd
import random
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.database import guard
from tests.database.faults import DatabaseUnavailableError
from tests.database.programs import Programs, require_programs

# Below the range that the kernel gives to outgoing connections.
PORTS = range(14_000, 20_000)
START_ATTEMPTS = 3
DEFAULT_PORT = 5432


class PostgresServer:
    """Use it as a context manager. All methods block: from async code, call them in a thread.

    Each raises `DatabaseUnavailableError` when the server does not do what it was told.
    """

    def __init__(self, *, programs: Programs | None = None) -> None:
        self._programs = programs or require_programs(DEFAULT_PORT)
        self._guard: subprocess.Popen[str] | None = None
        self.home = Path(tempfile.mkdtemp(prefix="durable-postgres-"))
        self.port = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def url(self, database: str = "postgres", *, user: str = "postgres") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int:
        """Of the process from which all others of the server descend."""
        return int((self.home / "data" / "postmaster.pid").read_text().split()[0])

    def start(self) -> None:
        """Start the server and return when it takes connections; after `stop`, with its data."""
        if self._guard is not None:
            self._order("start", expect="ready")
            return
        try:
            self._make_data()
            for attempt in range(1, START_ATTEMPTS + 1):
                self._open_guard()
                try:
                    self._order("start", expect="ready")
                    return
                except DatabaseUnavailableError:
                    # Somebody may have taken the port since we looked.
                    if attempt == START_ATTEMPTS:
                        raise
                    self._release_guard()
        except BaseException:
            self.close()
            raise

    def stop(self) -> None:
        """Disconnect everybody and shut down; the data stays for the next `start`."""
        self._order("stop", expect="stopped")

    def kill(self) -> None:
        """Like a crash: what the disk holds is all that is left."""
        self._order("kill", expect="stopped")

    def close(self) -> None:
        """End everything and delete the data. Harmless when repeated."""
        self._release_guard()
        shutil.rmtree(self.home, ignore_errors=True)

    def _make_data(self) -> None:
        user, group = _account()
        os.chown(self.home, user, group)
        done = subprocess.run(
            [
                *(self._programs.initdb, "-D", str(self.home / "data")),
                *("-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"),
            ],
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            user=user,
            group=group,
            extra_groups=[] if user else None,
            check=False,
        )
        if done.returncode != 0:
            raise DatabaseUnavailableError(f"initdb failed and said:\n{done.stdout[-2000:]}")

    def _open_guard(self) -> None:
        self.port = _free_port()
        user, group = _account()
        self._guard = subprocess.Popen(
            [
                *(sys.executable, guard.__file__, str(self.home), self._programs.postgres),
                *(str(self.port), str(user), str(group)),
            ],
            cwd=self.home.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def _order(self, order: str, *, expect: str) -> None:
        if self._guard is None:
            raise DatabaseUnavailableError("the private PostgreSQL was never started")
        assert self._guard.stdin is not None
        assert self._guard.stdout is not None
        self._guard.stdin.write(f"{order}\n")
        self._guard.stdin.flush()
        select.select([self._guard.stdout], [], [], guard.BOOT_SECONDS + 10)
        answer = self._guard.stdout.readline().strip()
        if answer != expect:
            raise DatabaseUnavailableError(
                f"the private PostgreSQL did not {order} ({answer or 'no answer'}). It said:\n"
                f"{self._last_words()}"
            )

    def _last_words(self) -> str:
        log = self.home / "log"
        return log.read_text(errors="replace")[-3000:] if log.exists() else "nothing"

    def _release_guard(self) -> None:
        process, self._guard = self._guard, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.wait()
        process.stdout.close()


def _account() -> tuple[int, int]:
    """Whom the server runs as: PostgreSQL refuses to be root."""
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    for name in ("postgres", "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return found.pw_uid, found.pw_gid
    raise DatabaseUnavailableError("there is no user to run PostgreSQL as: it refuses to be root")


def _free_port() -> int:
    # System randomness: a seeded global generator would give two sessions the same port.
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise DatabaseUnavailableError(f"no free port between {PORTS.start} and {PORTS.stop}")
