"""A private RabbitMQ node: own ports, own name, own data, own epmd; gone without a trace."""

import os
import random
import secrets
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from tests.broker import guard
from tests.broker.faults import BrokerUnavailableError
from tests.broker.programs import Programs, require_programs
from tests.broker.tls import NodeTls

# Below the range that the kernel gives to outgoing connections: nobody takes the port of a node
# that is stopped for a moment.
PORTS = range(20_000, 32_000)
START_ATTEMPTS = 3
DEFAULT_PORT = 5672


class BrokerNode:
    """Use it as a context manager. All methods block: from async code, call them in a thread.

    Each raises `BrokerUnavailableError` when the node does not do what it was told. With `tls` it
    listens on `tls_port` too; `settings` are Erlang terms of the application `rabbit`.
    """

    def __init__(
        self,
        *,
        programs: Programs | None = None,
        tls: NodeTls | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._tls = tls
        self._settings = settings or {}
        self._programs = programs or require_programs(DEFAULT_PORT)
        self.name = f"durable-test-{secrets.token_hex(6)}@localhost"
        self.home = Path(tempfile.mkdtemp(prefix="durable-broker-"))
        self._guard: subprocess.Popen[str] | None = None
        self._environment: dict[str, str] = {}
        self.port = 0
        self.tls_port = 0

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

    def url(self, vhost: str = "/") -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{quote(vhost, safe='')}"

    def tls_url(self, vhost: str = "/", *, host: str = "localhost") -> str:
        return f"amqps://guest:guest@{host}:{self.tls_port}/{quote(vhost, safe='')}"

    def start(self) -> None:
        """Start the node and return when it takes connections; after `stop`, with its old data."""
        if self._guard is not None:
            self._order("start", expect="ready")
            return
        for attempt in range(1, START_ATTEMPTS + 1):
            self._open_guard()
            try:
                self._order("start", expect="ready")
            except BrokerUnavailableError:
                # Another session may have taken one of the ports since we looked.
                if attempt == START_ATTEMPTS:
                    self.close()
                    raise
                self._close_guard()
            else:
                return

    def stop(self) -> None:
        """Shut the node down in an orderly way; its data stays for the next `start`."""
        self._order("stop", expect="stopped")

    def kill(self) -> None:
        """SIGKILL the node: what the disk holds is all that is left."""
        self._order("kill", expect="stopped")

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        """End everything and delete the data. Harmless when repeated."""
        self._close_guard()

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl on this node; returns what it printed."""
        done = subprocess.run(
            [self._programs.ctl, "-q", "-n", self.name, *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise BrokerUnavailableError(
                f"rabbitmqctl {' '.join(arguments)} failed on {self.name}: "
                f"{(done.stderr or done.stdout).strip()}"
            )
        return done.stdout

    @property
    def pid(self) -> int:
        """Of the process in which the node runs."""
        return int(self.ctl("eval", "list_to_integer(os:getpid())."))

    def add_vhost(self, name: str) -> str:
        """Create a virtual host that guest may do everything in; returns its URL."""
        self.ctl("add_vhost", name)
        self.ctl("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
        return self.url(name)

    def close_connections(self, reason: str = "closed by the test") -> None:
        self.ctl("close_all_connections", reason)

    def _open_guard(self) -> None:
        self.home.mkdir(exist_ok=True)
        self.port, dist_port, epmd_port, self.tls_port = _free_ports(4)
        self._environment = _environment(self.home, self.name, self.port, dist_port, epmd_port)
        _write_config(self.home, self.port)
        values = ", ".join(f"{{{name}, {value}}}" for name, value in self._settings.items())
        (self.home / "advanced.config").write_text(f"[{{rabbit, [{values}]}}].\n")
        if self._tls is not None:
            with (self.home / "rabbitmq.conf").open("a") as config:
                config.write(_tls_config(self._tls, self.tls_port))
            (self.home / "enabled_plugins").write_text("[rabbitmq_auth_mechanism_ssl].\n")
        self._guard = subprocess.Popen(
            [
                *(sys.executable, guard.__file__, str(self.home)),
                *(self._programs.server, self._programs.epmd, str(epmd_port)),
            ],
            env=self._environment,
            cwd=self.home.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def _order(self, order: str, *, expect: str) -> None:
        if self._guard is None:
            raise BrokerUnavailableError(f"{self.name} was never started")
        assert self._guard.stdin is not None
        assert self._guard.stdout is not None
        self._guard.stdin.write(f"{order}\n")
        self._guard.stdin.flush()
        select.select([self._guard.stdout], [], [], guard.BOOT_SECONDS + 10)
        answer = self._guard.stdout.readline().strip()
        if answer != expect:
            raise BrokerUnavailableError(
                f"the RabbitMQ node {self.name} did not {order} ({answer or 'no answer'}). "
                f"It said:\n{self._last_words()}"
            )

    def _last_words(self) -> str:
        log = self.home / "startup.log"
        return log.read_text(errors="replace")[-3000:] if log.exists() else "nothing"

    def _close_guard(self) -> None:
        process, self._guard = self._guard, None
        if process is None:
            if self.home.exists() and not any(self.home.iterdir()):
                self.home.rmdir()
            return
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.wait()
        process.stdout.close()


def _free_ports(count: int) -> list[int]:
    found: list[int] = []
    # System randomness: a seeded global generator would give two sessions the same ports.
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise BrokerUnavailableError(f"no {count} free ports between {PORTS.start} and {PORTS.stop}")


def _environment(
    home: Path, name: str, port: int, dist_port: int, epmd_port: int
) -> dict[str, str]:
    inherited = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("RABBITMQ_", "ERL_", "NOTIFY_"))
    }
    return inherited | {
        "HOME": str(home),
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_CRASH_DUMP_BYTES": "0",
        "RABBITMQ_NODENAME": name,
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(dist_port),
        "RABBITMQ_CONF_ENV_FILE": str(home / "env.conf"),
        "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(home / "data"),
        "RABBITMQ_LOG_BASE": str(home / "log"),
        "RABBITMQ_PID_FILE": str(home / "node.pid"),
        # Makes the start script replace itself by the Erlang machine, instead of waiting beside it.
        "RUNNING_UNDER_SYSTEMD": "true",
    }


def _write_config(home: Path, port: int) -> None:
    cookie = home / ".erlang.cookie"
    if not cookie.exists():
        cookie.write_text(secrets.token_hex(16))
        cookie.chmod(0o400)
    (home / "env.conf").write_text("")
    (home / "advanced.config").write_text("[].\n")
    (home / "enabled_plugins").write_text("[].\n")
    (home / "rabbitmq.conf").write_text(
        f"listeners.tcp.1 = 127.0.0.1:{port}\n"
        "disk_free_limit.absolute = 50MB\n"
        "raft.wal_max_size_bytes = 32000000\n"
    )


def _tls_config(tls: NodeTls, port: int) -> str:
    requires = "true" if tls.requires_client else "false"
    return (
        f"listeners.ssl.1 = 127.0.0.1:{port}\n"
        f"ssl_options.cacertfile = {tls.authority.ca_file}\n"
        f"ssl_options.certfile = {tls.certificate.cert_file}\n"
        f"ssl_options.keyfile = {tls.certificate.key_file}\n"
        "ssl_options.verify = verify_peer\n"
        f"ssl_options.fail_if_no_peer_cert = {requires}\n"
        "auth_mechanisms.1 = PLAIN\n"
        "auth_mechanisms.2 = EXTERNAL\n"
        "ssl_cert_login_from = common_name\n"
    )
