"""Virtual hosts of our own on a broker that was there before us."""

import base64
import subprocess
import urllib.request
from dataclasses import dataclass
from typing import Protocol
from urllib.error import URLError
from urllib.parse import quote, unquote, urlsplit

MANAGEMENT_PORT = 15672
MANAGEMENT_SECONDS = 3.0
CTL_SECONDS = 30.0
LOCAL_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
ALL = ".*"


class VhostError(Exception):
    """This way to make a virtual host is not open to us."""


class VhostMaker(Protocol):
    """Both methods raise `VhostError`."""

    def create(self, name: str) -> None: ...
    def delete(self, name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class ManagementApi:
    host: str
    user: str
    password: str
    port: int = MANAGEMENT_PORT

    def create(self, name: str) -> None:
        vhost = quote(name, safe="")
        self._call("PUT", f"vhosts/{vhost}", b"{}")
        rights = b'{"configure":".*","write":".*","read":".*"}'
        self._call("PUT", f"permissions/{vhost}/{quote(self.user, safe='')}", rights)

    def delete(self, name: str) -> None:
        self._call("DELETE", f"vhosts/{quote(name, safe='')}", None)

    def _call(self, method: str, path: str, body: bytes | None) -> None:
        token = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        request = urllib.request.Request(
            f"http://{self.host}:{self.port}/api/{path}",
            data=body,
            method=method,
            headers={"authorization": f"Basic {token}", "content-type": "application/json"},
        )
        # A proxy from the environment must not see a broker's credentials.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=MANAGEMENT_SECONDS):
                pass
        except (URLError, OSError) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            raise VhostError(str(error)) from error


@dataclass(frozen=True, slots=True)
class LocalCtl:
    """rabbitmqctl as it is on the PATH: works for root and for the user rabbitmq."""

    user: str
    program: str = "rabbitmqctl"

    def create(self, name: str) -> None:
        self._run("add_vhost", name)
        self._run("set_permissions", "-p", name, self.user, ALL, ALL, ALL)

    def delete(self, name: str) -> None:
        self._run("delete_vhost", name)

    def _run(self, *arguments: str) -> None:
        try:
            subprocess.run(
                [self.program, "-q", *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=True,
                timeout=CTL_SECONDS,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise VhostError(str(error)) from error


def makers_for(url: str) -> list[VhostMaker]:
    """Ways that may lead to a virtual host on the broker at `url`, the quicker one first."""
    parts = urlsplit(url)
    host, user = parts.hostname or "localhost", unquote(parts.username or "guest")
    makers: list[VhostMaker] = [ManagementApi(host, user, unquote(parts.password or "guest"))]
    if host in LOCAL_HOSTS:
        makers.append(LocalCtl(user))
    return makers


def at_vhost(url: str, name: str) -> str:
    """The same broker and options, another virtual host."""
    return urlsplit(url)._replace(path=f"/{quote(name, safe='')}").geturl()
