"""A Restate server with its state in a folder, and a service of Python handlers behind it."""

import json
import socket
import urllib.request
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.error import URLError

from tests.bench.environments import PEERS
from tests.bench.figures import UnavailableError
from tests.bench.processes import Program, environment
from tests.bench.running import with_bench

START_SECONDS = 60.0
PLATFORMS = ("linux-x64", "linux-arm64", "darwin-x64", "darwin-arm64")


@contextmanager
def served(python: Path, packages: Path, folder: Path, *, steps: int) -> Generator[str]:
    """The URL at which it takes calls. `packages`: where npm has installed the server."""
    node, ingress, admin, service = free_ports(4)
    settings = environment(
        RESTATE_BIND_ADDRESS=f"127.0.0.1:{node}",
        RESTATE_INGRESS__BIND_ADDRESS=f"127.0.0.1:{ingress}",
        RESTATE_ADMIN__BIND_ADDRESS=f"127.0.0.1:{admin}",
        RESTATE_LOG_FILTER="warn",
        RESTATE_DISABLE_TELEMETRY="true",
    )
    with ExitStack() as stack:
        server = stack.enter_context(
            Program([_binary(packages), "--no-logo"], cwd=folder, env=settings)
        )
        handlers = stack.enter_context(
            Program(
                [python, PEERS / "restate" / "service.py", str(steps), str(service)],
                env=with_bench(),
            )
        )
        # It keeps serving for as long as the server is connected.
        stack.callback(handlers.process.kill)
        handlers.wait_until(
            lambda: _listens(service), seconds=START_SECONDS, what="the start of its handlers"
        )
        server.wait_until(
            lambda: _registers(admin, service), seconds=START_SECONDS, what="its registration"
        )
        yield f"http://127.0.0.1:{ingress}"


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _binary(packages: Path) -> Path:
    found = [
        binary
        for platform in PLATFORMS
        if (
            binary := packages
            / f"node_modules/@restatedev/restate-server-{platform}/bin/restate-server"
        ).exists()
    ]
    if not found:
        raise UnavailableError("npm has no Restate server for this kind of machine")
    return found[0]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _registers(admin: int, service: int) -> bool:
    request = urllib.request.Request(
        f"http://127.0.0.1:{admin}/deployments",
        data=json.dumps({"uri": f"http://127.0.0.1:{service}"}).encode(),
        headers={"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=START_SECONDS):
            return True
    except (URLError, OSError):
        return False
