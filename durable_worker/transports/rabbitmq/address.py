"""The broker URL: checked once, shown without credentials ever after."""

import re

from msgspec import Struct
from yarl import URL

from durable_worker.errors import UsageError

_SCHEME = re.compile(r"[A-Za-z]+://")
_AFTER_AUTHORITY = re.compile(r"//[^/?#]*(?P<rest>.*)", re.DOTALL)


class BrokerAddress(Struct, frozen=True):
    """Where the broker is. `url` holds the password; `safe` is for people."""

    url: URL
    safe: str
    user: str
    vhost: str


def parse_address(text: str) -> BrokerAddress:
    """Read `amqp://user:password@host:port/vhost` (or `amqps`). Raises `UsageError`."""
    if _is_ambiguous(text):
        # No part of it is shown: any may belong to the password.
        raise UsageError(
            "the broker URL cannot be used: it has a `#`, or an `@` behind the host. In user name, "
            "password and virtual host, percent-encode `/` `#` `?` `@` as %2F %23 %3F %40."
        )
    try:
        url = URL(text)
        problem = _problem_with(url)
    except ValueError as error:
        raise _unusable(text, _without_credentials(str(error))) from None
    if problem is not None:
        raise _unusable(text, problem)
    vhost = url.path[1:].replace("%2F", "/") or "/"
    safe = str(url.with_user(None).with_query(None))
    return BrokerAddress(url=url, safe=safe, user=url.user or "guest", vhost=vhost)


def _is_ambiguous(text: str) -> bool:
    """Whether a password that is not percent-encoded may have been cut into host and path."""
    found = _AFTER_AUTHORITY.search(text)
    return found is not None and ("#" in found["rest"] or "@" in found["rest"])


def _problem_with(url: URL) -> str | None:
    if url.scheme not in ("amqp", "amqps"):
        return f"its scheme is {url.scheme!r}"
    if not url.host:
        return "it names no host"
    return None


def _unusable(text: str, problem: str) -> UsageError:
    return UsageError(
        f"the broker URL {_without_credentials(text)!r} cannot be used: {problem}. "
        f"Expected amqp://USER:PASSWORD@HOST:PORT/VHOST (amqps for TLS)."
    )


def _without_credentials(text: str) -> str:
    before, at, place = text.rpartition("@")
    if not at:
        return text
    scheme = _SCHEME.match(before)
    return f"{'' if scheme is None else scheme[0]}***@{place}"
