"""Tenant tokens (protocol/README.md, "Tenant tokens")."""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from durable_worker.errors import TenantTokenError, UsageError
from durable_worker.protocol.base import Message, Millis
from durable_worker.protocol.keys import Keyring, check_signing_ring

START = "start"
"""What a token allows besides kinds of requests."""

READS = (
    "getRunDetail",
    "listRuns",
    "pageRuns",
    "runFacets",
    "workerHealth",
    "waitingFor",
    "deadLetters",
    "deadLetter",
)

ANY_TENANT = "*"
"""Of a worker's token, which tells how a step of a run stands and nothing else."""

WORKER_ALLOWS = ("getRunDetail",)

LONGEST_TENANT = 160

_VERSION = "v1"
_DOMAIN = b"durable-tenant-token v1"


class TokenClaims(Message, frozen=True, kw_only=True):
    """Whose requests; until when (epoch milliseconds); which, by name. None: all of the tenant."""

    tenant: Annotated[str, Meta(min_length=1)]
    expires: Millis
    allow: list[str] | None = None

    @property
    def only_tenant(self) -> str | None:
        """None for the token of a worker."""
        return None if self.tenant == ANY_TENANT else self.tenant

    def allows(self, kind: str) -> bool:
        if self.tenant == ANY_TENANT:
            return kind in WORKER_ALLOWS
        return self.allow is None or kind in self.allow


_decoder = msgspec.json.Decoder(TokenClaims)


def claimed_by(token: str) -> TokenClaims:
    """What a token says, not whether that is true. Raises `TenantTokenError`."""
    parts = token.split(".")
    if len(parts) != 4 or parts[0] != _VERSION:
        raise TenantTokenError("it is no tenant token")
    try:
        padded = parts[2] + "=" * (-len(parts[2]) % 4)
        return _decoder.decode(urlsafe_b64decode(padded.encode()))
    except (msgspec.MsgspecError, Base64Error, UnicodeError, ValueError, RecursionError):
        raise TenantTokenError("it is no tenant token") from None


class TenantTokens:
    """Issues and checks the tokens of one operator.

    Raises `RegistrationError` for keys that are too short or have an id that cannot travel.
    """

    def __init__(self, ring: Keyring) -> None:
        check_signing_ring(ring)
        self._ring = ring

    def issue(self, tenant: str, *, expires: datetime, allow: Sequence[str] | None = None) -> str:
        """Raises `UsageError` for a tenant that no message could be addressed to."""
        if tenant != ANY_TENANT:
            check_tenant(tenant)
        claims = TokenClaims(
            tenant=tenant,
            expires=round(expires.timestamp() * 1000),
            allow=None if allow is None else list(allow),
        )
        payload = urlsafe_b64encode(msgspec.json.encode(claims)).rstrip(b"=").decode()
        key_id = self._ring.current
        key = self._ring.find(key_id)
        assert key is not None
        return f"{_VERSION}.{key_id}.{payload}.{_mac(key, key_id, payload)}"

    def read(self, token: str | None, *, now: int) -> TokenClaims:
        """What a token proves at `now` (epoch ms). Raises `TenantTokenError`.

        The error of one that has merely expired carries its tenant, if it has one.
        """
        if token is None:
            raise TenantTokenError("there is none")
        claims = claimed_by(token)
        _, key_id, payload, mac = token.split(".")
        key = self._ring.find(key_id)
        if key is None:
            raise TenantTokenError("it was made with a key that is not known here")
        expected = _mac(key, key_id, payload).encode()
        if not hmac.compare_digest(expected, mac.encode("utf-8", "surrogatepass")):
            raise TenantTokenError("it is not what was issued")
        if now >= claims.expires:
            ended = datetime.fromtimestamp(claims.expires / 1000, UTC)
            raise TenantTokenError(
                f"it has expired at {ended:%Y-%m-%d %H:%M:%S} UTC", tenant=claims.only_tenant
            )
        return claims


def check_tenant(tenant: str) -> None:
    """Raises `UsageError`."""
    size = len(tenant.encode("utf-8", "replace"))
    if not tenant or size > LONGEST_TENANT or any(each in tenant for each in "*#"):
        raise UsageError(
            f"{tenant!r} cannot be a tenant: a name has 1 to {LONGEST_TENANT} bytes, and no `*` "
            f"and no `#`, which select topics"
        )


def _mac(key: bytes, key_id: str, payload: str) -> str:
    mac = hmac.new(key, digestmod="sha256")
    for part in (_DOMAIN, key_id.encode(), payload.encode("utf-8", "surrogatepass")):
        mac.update(len(part).to_bytes(8, "big"))
        mac.update(part)
    return urlsafe_b64encode(mac.digest()).rstrip(b"=").decode()
