"""Owner of one private server's processes; runs as a process of its own.

Reads one order per line from stdin (`start`, `stop`, `kill`) and answers each with one line
(`ready`, `exited`, `stopped`); `exited` also if the server was not ready in time. When stdin ends,
orderly or because the test process died in any way at all, it kills what it started and removes the
server's directory.

Its argument is JSON: what `Program` and `PrivateServer` say.
"""

import json
import resource
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

BOOT_SECONDS = 120.0
STOP_SECONDS = 30.0
FILES = 20_000
LOG = "startup.log"


class Guard:
    def __init__(self, told: dict[str, Any]) -> None:
        self.home = Path(told["home"])
        self.command: list[str] = told["command"]
        self.ready: bytes = told["ready"].encode()
        self.account: dict[str, Any] = told["account"]
        self.signals = {"stop": told["stop"], "kill": told["kill"]}
        self.companion = _quietly(told["companion"]) if told["companion"] else None
        self.server: subprocess.Popen[bytes] | None = None

    def obey(self, order: str) -> str:
        match order:
            case "start":
                return "ready" if self.start() else "exited"
            case "stop" | "kill":
                self.end(order)
                return "stopped"
            case _:
                return "unknown"

    def start(self) -> bool:
        self.end("kill")
        server = self.server = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            **self.account,
        )
        is_ready = threading.Event()
        is_decided = threading.Event()

        def drain() -> None:
            assert server.stdout is not None
            with (self.home / LOG).open("ab", buffering=0) as log, server.stdout as output:
                for line in output:
                    log.write(line)
                    if self.ready in line:
                        is_ready.set()
                        is_decided.set()
            is_decided.set()

        threading.Thread(target=drain, daemon=True).start()
        is_decided.wait(BOOT_SECONDS)
        return is_ready.is_set()

    def end(self, order: str) -> None:
        server, self.server = self.server, None
        if server is None:
            return
        server.send_signal(self.signals[order])
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()

    def close(self) -> None:
        self.end("kill")
        if self.companion is not None:
            self.companion.kill()
            self.companion.wait()
        shutil.rmtree(self.home, ignore_errors=True)


def _quietly(command: list[str]) -> subprocess.Popen[bytes]:
    nowhere = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere)


def main() -> None:
    # A handler, unlike SIG_IGN, is not inherited by the server.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = min(most_files, FILES) if most_files != resource.RLIM_INFINITY else FILES
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, most_files))
    guard = Guard(json.loads(sys.argv[1]))
    try:
        for line in sys.stdin:
            print(guard.obey(line.strip()), flush=True)
    except BrokenPipeError:
        pass
    finally:
        guard.close()


if __name__ == "__main__":
    main()
