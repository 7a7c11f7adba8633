"""Whose a start or a request is: what it says, or with tenant keys what its token proves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from durable_worker.errors import TenantTokenError
from durable_worker.protocol.base import TOKEN_HEADER
from durable_worker.protocol.keys import Keyring
from durable_worker.protocol.names import DEFAULT_NAMESPACE
from durable_worker.protocol.runs import (
    AnyRequest,
    CancelRequest,
    GetRunDetail,
    ListRuns,
    PageRuns,
    RequestBody,
    RunRequest,
    StartRequest,
)
from durable_worker.protocol.tokens import START, TenantTokens, TokenClaims
from durable_worker.stores.base import Store
from durable_worker.transports.base import Envelope


@dataclass(frozen=True, slots=True)
class Admitted:
    """A request under the tenant that it may speak for, who alone gets the reply (None: all)."""

    request: RunRequest
    reply_to: str | None


class Admission:
    """`now` tells epoch milliseconds. Without `keys` every sender is believed."""

    def __init__(self, keys: Keyring | None, *, store: Store, now: Callable[[], int]) -> None:
        self._tokens = None if keys is None else TenantTokens(keys)
        self._store = store
        self._now = now

    @property
    def is_required(self) -> bool:
        return self._tokens is not None

    def tenant_of_start(self, envelope: Envelope, stated: str) -> str:
        """Raises `TenantTokenError`."""
        claims = self._claims(envelope)
        if claims is None:
            return stated
        _require(claims, START)
        return claims.tenant

    async def admit(self, request: RunRequest, envelope: Envelope) -> Admitted:
        """Raises `TenantTokenError`, `StoreError`."""
        claims = self._claims(envelope)
        if claims is None:
            return Admitted(request, None)
        for kind in _needed(request.body):
            _require(claims, kind)
        if claims.only_tenant is None:
            return Admitted(replace(request, tenant=await self._owner(request.body)), None)
        return Admitted(replace(request, tenant=claims.tenant), claims.tenant)

    def reader_of(self, envelope: Envelope) -> str | None:
        """Who alone gets the reply to a request whose kind nobody knows (None: all). Raises
        `TenantTokenError`."""
        claims = self._claims(envelope)
        return None if claims is None else claims.only_tenant

    def _claims(self, envelope: Envelope) -> TokenClaims | None:
        if self._tokens is None:
            return None
        return self._tokens.read(envelope.headers.get(TOKEN_HEADER), now=self._now())

    async def _owner(self, body: AnyRequest) -> str:
        """Of the run that a worker asks about."""
        state = await self._store.load(body.run_id) if isinstance(body, GetRunDetail) else None
        return DEFAULT_NAMESPACE if state is None else state.run.namespace


def kind_of(body: AnyRequest) -> str:
    return kind_named(type(body))


def kind_named(request: type[RequestBody]) -> str:
    return str(request.__struct_config__.tag)


def _needed(body: AnyRequest) -> Sequence[str]:
    """What a token has to allow."""
    match body:
        case StartRequest(reuse="terminate"):
            return [START, kind_named(CancelRequest)]
        case StartRequest():
            return [START]
        case PageRuns():
            return [kind_named(ListRuns)]
        case _:
            return [kind_of(body)]


def _require(claims: TokenClaims, kind: str) -> None:
    if not claims.allows(kind):
        raise TenantTokenError(f"it does not allow {kind!r}", tenant=claims.only_tenant)
