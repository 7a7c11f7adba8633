"""Owner of one private node's processes; runs as a process of its own.

Reads one order per line from stdin (`start`, `stop`, `kill`) and answers each with one line
(`ready`, `exited`, `stopped`). When stdin ends, orderly or because the test process died in any
way at all, it kills what it started and removes the node's directory.

Arguments: directory of the node, path of rabbitmq-server, path of epmd, epmd's port.
"""

import resource
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

STARTED = b"completed with"
BOOT_SECONDS = 120.0
STOP_SECONDS = 30.0
FILES = 20_000


class Guard:
    def __init__(self, home: Path, server: str, epmd: str, epmd_port: str) -> None:
        self.home = home
        self.server = server
        self.epmd = subprocess.Popen(
            [epmd, "-port", epmd_port, "-address", "127.0.0.1"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.node: subprocess.Popen[bytes] | None = None

    def obey(self, order: str) -> str:
        match order:
            case "start":
                return self.start()
            case "stop" | "kill":
                self.end(gracefully=order == "stop")
                return "stopped"
            case _:
                return "unknown"

    def start(self) -> str:
        self.end(gracefully=False)
        node = subprocess.Popen(
            [self.server],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.node = node
        is_ready = threading.Event()
        is_decided = threading.Event()

        def drain() -> None:
            assert node.stdout is not None
            with (self.home / "startup.log").open("ab", buffering=0) as log, node.stdout as output:
                for line in output:
                    log.write(line)
                    if STARTED in line:
                        is_ready.set()
                        is_decided.set()
            is_decided.set()

        threading.Thread(target=drain, daemon=True).start()
        is_decided.wait(BOOT_SECONDS)
        return "ready" if is_ready.is_set() else "exited"

    def end(self, *, gracefully: bool) -> None:
        node, self.node = self.node, None
        if node is None:
            return
        if gracefully:
            node.terminate()
            try:
                node.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                gracefully = False
        if not gracefully:
            node.kill()
        node.wait()

    def close(self) -> None:
        self.end(gracefully=False)
        self.epmd.kill()
        self.epmd.wait()
        shutil.rmtree(self.home, ignore_errors=True)


def main() -> None:
    home, server, epmd, epmd_port = sys.argv[1:]
    # A handler, unlike SIG_IGN, is not inherited by the node.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = min(most_files, FILES) if most_files != resource.RLIM_INFINITY else FILES
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, most_files))
    guard = Guard(Path(home), server, epmd, epmd_port)
    try:
        for line in sys.stdin:
            print(guard.obey(line.strip()), flush=True)
    except BrokenPipeError:
        pass
    finally:
        guard.close()


if __name__ == "__main__":
    main()
