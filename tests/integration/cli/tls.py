"""A broker on TLS for the command line, whose only user has a password that can be found again."""

from dataclasses import dataclass, field
from pathlib import Path

from tests.broker import BrokerNode
from tests.broker.tls import Authority

USER = "marked"
MARKER = "MARKERq7Zx"
PASSWORD = f"{MARKER}%2Fp%40ss"
"""As it stands in a URL: with characters that a URL must encode."""


@dataclass(frozen=True, slots=True)
class Marked:
    """The node, and the URLs that lead there."""

    node: BrokerNode
    authority: Authority
    ca: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def tls_url(self) -> str:
        return f"amqps://{USER}:{PASSWORD}@localhost:{self.node.tls_port}/"

    @property
    def plain_url(self) -> str:
        return f"amqp://{USER}:{PASSWORD}@localhost:{self.node.port}/"


def marked(node: BrokerNode, authority: Authority) -> Marked:
    node.ctl("add_user", USER, PASSWORD.replace("%2F", "/").replace("%40", "@"))
    node.ctl("set_permissions", USER, ".*", ".*", ".*")
    return Marked(node, authority, {"DURABLE_BROKER_CA_FILE": str(authority.ca_file)})


def url_file(folder: Path, url: str) -> dict[str, str]:
    path = folder / "broker-url"
    path.write_text(f"{url}\n")
    return {"DURABLE_BROKER_URL_FILE": str(path)}
