"""The broker URL: checked once, shown without credentials ever after."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from msgspec import Struct

from durable_worker.errors import BrokerRefusedError, UsageError

_SCHEME = re.compile(r"[A-Za-z]+://")
_AFTER_AUTHORITY = re.compile(r"//[^/?#]*(?P<rest>.*)", re.DOTALL)

_PORTS: Final = {"amqp": 5672, "amqps": 5671}
_PLAIN: Final = "/%:[]!$&'()*+,;=~"

_SET_UP_ELSEWHERE = frozenset(
    {
        *("no_verify_ssl", "cafile", "capath", "cadata", "certfile", "keyfile"),
        *("cacertfile", "verify", "fail_if_no_peer_cert", "server_name_indication", "password"),
    }
)
"""Parameters by which a URL could turn verification off, or seem to turn it on: those of the
library below, and those that RabbitMQ's own clients know."""


class TlsOptions(Struct, frozen=True, kw_only=True):
    """How to speak TLS to the broker, for `amqps` URLs. Files are PEM and are read anew for each
    connection, so that renewed ones come into use by themselves.

    `ca_file` holds the authorities to trust (None: those of the system). `cert_file` and `key_file`
    are shown to a broker that asks for a client certificate; the key may be in `cert_file`, and
    encrypted with `key_password` or the first line of `key_password_file`. The certificate of the
    broker is always verified; `checks_host_name=False` takes one that was issued for another host.
    """

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    key_password: str | None = None
    key_password_file: Path | None = None
    checks_host_name: bool = True

    def __repr__(self) -> str:
        return f"TlsOptions(ca_file={self.ca_file}, cert_file={self.cert_file})"


class BrokerAddress(Struct, frozen=True):
    """Where the broker is, and who is to log in there. `safe` is for people; `url` holds the
    password. `options` are the parameters of the URL; `tls` is None where none is spoken."""

    url: str
    safe: str
    host: str
    port: int
    user: str
    password: str
    vhost: str
    options: dict[str, str]
    tls: TlsOptions | None = None

    def __repr__(self) -> str:
        return f"BrokerAddress({self.safe!r})"


def parse_address(text: str, *, tls: TlsOptions | None = None) -> BrokerAddress:
    """Read `amqp://user:password@host:port/vhost` (or `amqps`). Raises `UsageError`, which shows no
    part of the text that may belong to the password."""
    if _is_ambiguous(text):
        raise UsageError(
            "the broker URL cannot be used: it has a `#`, or an `@` behind the host. In user name, "
            "password and virtual host, percent-encode `/` `#` `?` `@` as %2F %23 %3F %40."
        )
    try:
        text.encode()  # what cannot be is no URL either
        parts = urlsplit(text)
        problem = _problem_with(parts)
        port, safe = parts.port, _safe(parts)
    except ValueError:
        # What is wrong is told in words of ours: the library's quote what they cannot read.
        raise _unusable(text, "its host or its port cannot be read") from None
    if problem is not None or parts.hostname is None:
        raise _unusable(text, problem or "it names no host")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    _check_parameters(options, safe)
    if parts.scheme == "amqp" and tls is not None:
        raise UsageError(
            f"files for TLS are given, but the broker URL {safe} asks for a connection "
            f"without it. Write amqps:// instead (the broker's port for TLS is 5671 by default), "
            f"or leave the files out."
        )
    return BrokerAddress(
        url=text,
        safe=safe,
        host=parts.hostname,
        port=port or _PORTS[parts.scheme],
        user=unquote(parts.username or "") or "guest",
        password=unquote(parts.password or ""),
        vhost=unquote(parts.path[1:]) or "/",
        options=options,
        tls=None if parts.scheme == "amqp" else tls or TlsOptions(),
    )


class UrlFile(Struct, frozen=True):
    """A file that holds the broker URL and nothing else, such as a mounted secret."""

    path: Path

    def __call__(self) -> str:
        """Raises `UsageError`, which shows nothing of what the file holds."""
        try:
            lines = self.path.read_text().strip().splitlines()
        except OSError as error:
            raise self._unusable(f"cannot be read: {error.strerror or error}") from None
        except UnicodeDecodeError:
            raise self._unusable("is no text") from None
        if len(lines) != 1:
            raise self._unusable("holds more than one line" if lines else "is empty")
        return lines[0]

    def _unusable(self, problem: str) -> UsageError:
        return UsageError(
            f"the file of the broker URL, {str(self.path)!r}, {problem}. It is to hold one line: "
            f"amqp://USER:PASSWORD@HOST:PORT/VHOST (amqps for TLS)."
        )


UrlSource = str | Callable[[], str]
"""The broker URL, or a function that is asked for it before each attempt to connect."""


class AddressSource:
    """The broker's address, which may change while we are connected: a password is rotated.

    Raises `UsageError` as `parse_address` does, once more with each `current`.
    """

    def __init__(self, url: UrlSource, *, tls: TlsOptions | None = None) -> None:
        self._url = url
        self._tls = tls
        self.latest = self._read()

    def current(self) -> BrokerAddress:
        """As it is now. Raises `BrokerRefusedError` where it cannot be told."""
        if callable(self._url):
            try:
                self.latest = self._read()
            except UsageError as error:
                raise BrokerRefusedError(str(error)) from error
        return self.latest

    def _read(self) -> BrokerAddress:
        url = self._url if isinstance(self._url, str) else self._url()
        return parse_address(url, tls=self._tls)


def has_password(text: str) -> bool:
    """Whether a URL holds a password that is worth hiding."""
    authority = text.partition("://")[2].partition("/")[0]
    userinfo, at, _ = authority.rpartition("@")
    return bool(at) and userinfo.partition(":")[2] not in ("", "guest")


def _is_ambiguous(text: str) -> bool:
    """Whether a password that is not percent-encoded may have been cut into host and path."""
    found = _AFTER_AUTHORITY.search(text)
    return found is not None and ("#" in found["rest"] or "@" in found["rest"])


def _problem_with(parts: SplitResult) -> str | None:
    if parts.scheme not in _PORTS:
        return "its scheme is neither amqp nor amqps"
    if not parts.hostname:
        return "it names no host"
    if not parts.hostname.isprintable() or " " in parts.hostname:
        return "its host or its port cannot be read"
    parts.hostname.encode("idna")
    return None


def _check_parameters(options: dict[str, str], safe: str) -> None:
    for name in options:
        if name in _SET_UP_ELSEWHERE:
            raise UsageError(
                f"the broker URL {safe} has the parameter {name!r}, but TLS is not set up in "
                f"the URL: use --broker-ca, --broker-cert and --broker-key, or TlsOptions. The "
                f"broker's certificate is always verified."
            )
    heartbeat = options.get("heartbeat", "0")
    if not (heartbeat.isascii() and heartbeat.isdecimal() and len(heartbeat) <= 5):
        raise UsageError(
            f"the broker URL {safe} has the heartbeat {heartbeat!r}: expected seconds, such as 10."
        )
    mechanism = options.get("auth", "plain").upper()
    if mechanism not in ("PLAIN", "EXTERNAL"):
        raise UsageError(
            f"the broker URL {safe} asks to log in by {mechanism!r}: expected plain, or external."
        )


def _safe(parts: SplitResult) -> str:
    host = parts.netloc.rpartition("@")[2].lower()
    return f"{parts.scheme}://{quote(host, safe=_PLAIN)}{quote(parts.path, safe=_PLAIN)}"


def _unusable(text: str, problem: str) -> UsageError:
    return UsageError(
        f"the broker URL {_without_credentials(text)} cannot be used: {problem}. "
        f"Expected amqp://USER:PASSWORD@HOST:PORT/VHOST (amqps for TLS)."
    )


def _without_credentials(text: str) -> str:
    scheme = _SCHEME.match(text)
    _, at, place = text.rpartition("@")
    if not at:
        # `amqp://user:password` lacks its host, and looks as if it had one.
        return f"{'' if scheme is None else scheme[0]}***"
    return repr(f"{'' if scheme is None else scheme[0]}***@{place.partition('?')[0]}")
