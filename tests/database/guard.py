"""Owner of one private PostgreSQL server; runs as a process of its own.

Reads one order per line from stdin (`start`, `stop`, `kill`) and answers each with one line
(`ready`, `exited`, `stopped`). When stdin ends, orderly or because the test process died in any
way at all, it kills what it started and removes the server's directory.

Arguments: directory of the server, path of `postgres`, port, user id and group id to run it as.
"""

import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

BOOT_SECONDS = 60.0
STOP_SECONDS = 30.0


class Guard:
    def __init__(self, home: Path, program: str, port: int, user: int, group: int) -> None:
        self.home = home
        self.command = [
            *(program, "-D", str(home / "data"), "-p", str(port), "-k", str(home)),
            *("-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200"),
        ]
        self.port = port
        self.user, self.group = user, group
        self.server: subprocess.Popen[bytes] | None = None

    def obey(self, order: str) -> str:
        match order:
            case "start":
                return "ready" if self.start() else "exited"
            case "stop" | "kill":
                self.end(gracefully=order == "stop")
                return "stopped"
            case _:
                return "unknown"

    def start(self) -> bool:
        self.end(gracefully=False)
        with (self.home / "log").open("ab") as log:
            self.server = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                user=self.user,
                group=self.group,
                extra_groups=[] if self.user else None,
                start_new_session=True,
            )
        deadline = time.monotonic() + BOOT_SECONDS
        while self.server.poll() is None and time.monotonic() < deadline:
            if self.takes_connections():
                return True
            time.sleep(0.05)
        return False

    def takes_connections(self) -> bool:
        """A server that recovers opens its port, and refuses whoever asks for a session."""
        parameters = b"user\0postgres\0database\0postgres\0\0"
        greeting = (len(parameters) + 8).to_bytes(4, "big") + (196_608).to_bytes(4, "big")
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as probe:
                probe.sendall(greeting + parameters)
                return probe.recv(1) == b"R"
        except OSError:
            return False

    def end(self, *, gracefully: bool) -> None:
        server, self.server = self.server, None
        if server is None or server.poll() is not None:
            return
        # SIGINT: disconnect everybody and shut down; SIGQUIT: like a crash, children included.
        server.send_signal(signal.SIGINT if gracefully else signal.SIGQUIT)
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()

    def close(self) -> None:
        self.end(gracefully=False)
        shutil.rmtree(self.home, ignore_errors=True)


def main() -> None:
    home, program, port, user, group = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    guard = Guard(Path(home), program, int(port), int(user), int(group))
    try:
        for line in sys.stdin:
            print(guard.obey(line.strip()), flush=True)
    except BrokenPipeError:
        pass
    finally:
        guard.close()


if __name__ == "__main__":
    main()
