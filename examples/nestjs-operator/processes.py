"""Processes of the demo: their lines are shown, and kept to be waited for."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from threading import Thread

PATIENCE_SECONDS = 60


class DemoError(Exception):
    """The demo did not go as it should; says what was expected."""


class Process:
    def __init__(
        self, label: str, command: Sequence[str | Path], environment: dict[str, str]
    ) -> None:
        self.label = label
        self.lines: list[str] = []
        self._process = subprocess.Popen(
            command,
            env={**os.environ, "NO_COLOR": "1", "PYTHONUNBUFFERED": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # Ctrl-C is for the demo, which then stops it
        )
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            if line.strip():
                self.lines.append(line.strip())
                print(f"  {self.label:>8} | {line.rstrip()}", flush=True)

    def wait_for(self, text: str) -> str:
        """The first line with this text."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            has_ended = self._process.poll() is not None
            for line in list(self.lines):
                if text in line:
                    return line
            if has_ended:
                break
            time.sleep(0.05)
        raise DemoError(f"the {self.label} was expected to say {text!r}")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()


def say(sentence: str) -> None:
    bold, plain = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")
    print(f"\n{bold}== {sentence}{plain}", flush=True)
