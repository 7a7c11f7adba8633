"""A server of a test's own, in the hands of a guard that outlives the test process by a moment."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.servers import guard
from tests.servers.account import Account
from tests.servers.faults import ServerUnavailableError

START_ATTEMPTS = 3
ANSWER_SECONDS = guard.BOOT_SECONDS + 10
"""No order takes longer: stopping is bounded by the guard as well."""
CLOSE_SECONDS = guard.STOP_SECONDS + 10
MAKE_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Program:
    """What the guard runs. The server is ready when it has printed a line that contains `ready`."""

    command: tuple[str, ...]
    ready: str
    companion: tuple[str, ...] = ()
    """Runs as long as the guard does, beside the server."""
    account: Account | None = None
    stop: signal.Signals = signal.SIGTERM
    kill: signal.Signals = signal.SIGKILL
    environment: Mapping[str, str] | None = None


class PrivateServer:
    """Base of the servers, each of which says in `prepared` what to run. Use one as a context
    manager. All methods block: from async code, call them in a thread.

    Each raises `ServerUnavailableError` when the server does not do what it was told.
    """

    def __init__(self, title: str, *, folder: str) -> None:
        self.title = title
        self.home = Path(tempfile.mkdtemp(prefix=folder))
        self._guard: subprocess.Popen[str] | None = None

    def prepared(self) -> Program:
        """Ports chosen anew, configuration and data in `home`: called before the first start, and
        again if that fails, since somebody may have taken one of the ports meanwhile."""
        raise NotImplementedError

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

    def start(self) -> None:
        """Start it and return when it takes connections; after `stop`, with its old data."""
        if self._guard is not None:
            self._order("start", expect="ready")
            return
        try:
            for attempt in range(1, START_ATTEMPTS + 1):
                self.home.mkdir(exist_ok=True)
                self._open_guard(self.prepared())
                try:
                    self._order("start", expect="ready")
                    return
                except ServerUnavailableError:
                    if attempt == START_ATTEMPTS:
                        raise
                    self._close_guard()
        except BaseException:
            self.close()
            raise

    def stop(self) -> None:
        """Disconnect everybody and shut down in an orderly way; the data stays for `start`."""
        self._order("stop", expect="stopped")

    def kill(self) -> None:
        """Like a crash: what the disk holds is all that is left."""
        self._order("kill", expect="stopped")

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        """End everything and delete the data. Harmless when repeated."""
        self._close_guard()
        shutil.rmtree(self.home, ignore_errors=True)

    def _open_guard(self, program: Program) -> None:
        account = program.account
        told: dict[str, Any] = {
            "home": str(self.home),
            "command": program.command,
            "ready": program.ready,
            "companion": program.companion,
            "account": popen_arguments(account),
            "stop": program.stop,
            "kill": program.kill,
        }
        self._guard = subprocess.Popen(
            [sys.executable, guard.__file__, json.dumps(told)],
            env=program.environment,
            cwd=self.home.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def _order(self, order: str, *, expect: str) -> None:
        if self._guard is None:
            raise ServerUnavailableError(f"{self.title} was never started")
        assert self._guard.stdin is not None
        assert self._guard.stdout is not None
        answer = ""
        with suppress(BrokenPipeError):
            self._guard.stdin.write(f"{order}\n")
            self._guard.stdin.flush()
            if select.select([self._guard.stdout], [], [], ANSWER_SECONDS)[0]:
                answer = self._guard.stdout.readline().strip()
        if answer != expect:
            raise ServerUnavailableError(
                f"{self.title} did not {order} ({answer or 'no answer'}). It said:\n"
                f"{self._last_words()}"
            )

    def _last_words(self) -> str:
        log = self.home / guard.LOG
        return log.read_text(errors="replace")[-3000:] if log.exists() else "nothing"

    def _close_guard(self) -> None:
        process, self._guard = self._guard, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            # A session of its own: this ends what the guard has started, too.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        process.stdout.close()


def made_by(command: tuple[str, ...], *, home: Path, account: Account | None) -> None:
    """Run once what makes a server's data, in `home`, which becomes the account's.

    Raises `ServerUnavailableError` with the end of what it printed.
    """
    name = Path(command[0]).name
    if account is not None:
        os.chown(home, account.user, account.group)
    try:
        done = subprocess.run(
            command,
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=MAKE_SECONDS,
            **popen_arguments(account),
        )
    except subprocess.TimeoutExpired:
        raise ServerUnavailableError(f"{name} took longer than {MAKE_SECONDS} seconds") from None
    if done.returncode != 0:
        raise ServerUnavailableError(f"{name} failed and said:\n{done.stdout[-2000:]}")


def popen_arguments(account: Account | None) -> dict[str, Any]:
    """None of root's groups goes along."""
    if account is None:
        return {}
    return {"user": account.user, "group": account.group, "extra_groups": []}
