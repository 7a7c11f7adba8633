"""The operator and the workers as processes that a test may stop or kill."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from durable_worker.protocol.names import Names, routing_token
from tests.broker import amqp
from tests.interop import acts, app
from tests.interop.building import ROOT
from tests.interop.control import Control, until
from tests.interop.journal import VARIABLE
from tests.interop.lifeline import LIFELINE

STOP_SECONDS = 15
START_SECONDS = 60

running: "list[Process]" = []
"""Whoever is alive: their last words are shown when a test fails."""


class Process:
    def __init__(
        self, name: str, command: Sequence[str], environment: dict[str, str], log: Path
    ) -> None:
        self.name = name
        self.log = log
        self._from = log.stat().st_size if log.exists() else 0
        with log.open("ab") as output:
            # Its standard input ends with us: a session that dies takes its processes along.
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, LIFELINE: "1", **environment},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
            )
        running.append(self)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def output(self) -> str:
        return self.log.read_bytes()[self._from :].decode(errors="replace")

    def logged(self, text: str, *, seconds: float = 20) -> str:
        """The first line that holds `text`, once there is one."""

        def line() -> str | None:
            return next((each for each in self.output().splitlines() if text in each), None)

        return until(line, lambda: f"{self.name} never said {text!r}", seconds=seconds)

    def kill(self) -> int:
        """SIGKILL it; its pid."""
        self._end(signal.SIGKILL)
        return self.pid

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self in running:
            running.remove(self)
        if self.is_alive:
            self._process.send_signal(how)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"{self.name} did not stop within {STOP_SECONDS} s") from None
        finally:
            assert self._process.stdin is not None
            self._process.stdin.close()


APP, BODIES = "tests.interop.app", "tests.interop.bodies"
"""The modules whose workers are served."""
TYPESCRIPT = ("ts.double", "ts.refuse", "ts.work")
OTHERS = ("py.future", "gpu.render")
"""Steps that single tests serve by hand."""
PARTITIONS = (None, "blue", "green")


class House:
    """One operator, its database, and the workers that a test starts beside it.

    Use it as a context manager: it ends what is still running.
    """

    def __init__(self, main: Path, url: str, prefix: str, folder: Path) -> None:
        self.url = url
        self.prefix = prefix
        self.journal = folder / "journal"
        self._main = main
        self._folder = folder
        self._started: list[Process] = []
        self._prefixes = {prefix}
        self.operator: Process
        self.control: Control

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Workers first: they say goodbye to an operator that still listens.
        failures = [each for process in reversed(self._started) if (each := _stopped(process))]
        for prefix in self._prefixes:
            _leave_nothing(self.url, Names(prefix=prefix))
        assert not failures, failures

    def start_operator(self, **environment: str) -> Control:
        """Start the operator, again after a kill, and return when it is ready."""
        settings = {
            "AMQP_URL": self.url,
            "PREFIX": self.prefix,
            "DATABASE": str(self._folder / "operator.sqlite"),
            "LEASE_MS": "3000",
            "SILENCE_MS": "4000",
            "TIMER_POLL_MS": "100",
            VARIABLE: str(self.journal),
        }
        self.operator = self._start("operator", ["node", str(self._main)], settings | environment)
        self.control = Control(self._port_of(self.operator))
        return self.control

    def start_worker(self, *arguments: str, prefix: str | None = None) -> Process:
        """Start `durable-worker run` on the app of these tests."""
        self._prefixes.add(prefix or self.prefix)
        command = [sys.executable, "-m", "durable_worker", "run", "tests.interop.app:worker"]
        command += ["--broker", self.url, "--prefix", prefix or self.prefix]
        command += ["--log-format", "json", *arguments]
        return self._start("worker", command, {VARIABLE: str(self.journal)})

    def start_telling_worker(self, module: str = APP, **environment: str) -> Process:
        """Start a worker that tells the journal which results were confirmed."""
        settings = {"AMQP_URL": self.url, "PREFIX": self.prefix, VARIABLE: str(self.journal)}
        command = [sys.executable, "-m", "tests.interop.worker", module]
        return self._start("worker", command, settings | environment)

    def _start(self, name: str, command: list[str], environment: dict[str, str]) -> Process:
        process = Process(name, command, environment, self._folder / f"{name}.log")
        self._started.append(process)
        return process

    def _port_of(self, operator: Process) -> int:
        def port() -> int | None:
            for line in operator.output().splitlines():
                if line.startswith('{"port":') and line.endswith("}"):
                    return int(json.loads(line)["port"])
            assert operator.is_alive, f"the operator ended:\n{operator.output()[-4000:]}"
            return None

        state = lambda: f"the operator is not ready:\n{operator.output()[-4000:]}"  # noqa: E731
        return until(port, state, seconds=START_SECONDS)


def _stopped(process: Process) -> str | None:
    """Why it could not be stopped in an orderly way."""
    try:
        process.stop()
    except AssertionError as error:
        return str(error)
    return None


def _leave_nothing(url: str, names: Names) -> None:
    """Delete what a house declared: a broker of 1,024 file handles carries some 180 such queues."""
    served = {*app.worker.names(), *acts.worker.names(), *TYPESCRIPT, *OTHERS}
    tokens = [routing_token(name, partition) for name in served for partition in PARTITIONS]
    queues = [names.tasks(token) for token in tokens]
    queues += [names.results, names.decisions, names.step_events, names.start_run]
    queues += [names.run_request, names.dead]
    exchanges = [names.control, names.heartbeat, names.run_reply, names.workers]
    with suppress(OSError, TimeoutError):  # a broker that is gone keeps nothing either
        amqp.delete(url, queues=queues, exchanges=[*exchanges, names.tenant_events])
