"""A private RabbitMQ node: own name and own epmd, too."""

import os
import secrets
import subprocess
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from tests.broker.programs import Programs, require_programs
from tests.broker.tls import NodeTls
from tests.servers import PrivateServer, Program, ServerUnavailableError, free_ports

DEFAULT_PORT = 5672
READY = "completed with"
CTL_SECONDS = 120


class BrokerNode(PrivateServer):
    """With `tls` it listens on `tls_port` too; `settings` are Erlang terms of the application
    `rabbit`."""

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
        self._environment: dict[str, str] = {}
        self.name = f"durable-test-{secrets.token_hex(6)}@localhost"
        self.port = 0
        self.tls_port = 0
        super().__init__(f"the RabbitMQ node {self.name}", folder="durable-broker-")

    def url(self, vhost: str = "/") -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{quote(vhost, safe='')}"

    def tls_url(self, vhost: str = "/", *, host: str = "localhost") -> str:
        return f"amqps://guest:guest@{host}:{self.tls_port}/{quote(vhost, safe='')}"

    def prepared(self) -> Program:
        self.port, dist_port, epmd_port, self.tls_port = free_ports(4)
        self._environment = _environment(self.home, self.name, self.port, dist_port, epmd_port)
        _write_config(self.home, self.port)
        values = ", ".join(f"{{{name}, {value}}}" for name, value in self._settings.items())
        (self.home / "advanced.config").write_text(f"[{{rabbit, [{values}]}}].\n")
        if self._tls is not None:
            with (self.home / "rabbitmq.conf").open("a") as config:
                config.write(_tls_config(self._tls, self.tls_port))
            (self.home / "enabled_plugins").write_text("[rabbitmq_auth_mechanism_ssl].\n")
        epmd = (self._programs.epmd, "-port", str(epmd_port), "-address", "127.0.0.1")
        return Program(
            (self._programs.server,),
            ready=READY,
            companion=epmd,
            environment=self._environment,
        )

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl on this node; returns what it printed."""
        done = subprocess.run(
            [self._programs.ctl, "-q", "-n", self.name, *arguments],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=CTL_SECONDS,
        )
        if done.returncode != 0:
            raise ServerUnavailableError(
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
