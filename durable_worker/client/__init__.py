"""Start, signal, cancel and query runs: over a broker, or on a local database."""

from datetime import timedelta

from durable_worker.client.broker import BrokerPort
from durable_worker.client.client import Client
from durable_worker.client.contexts import Context, ContextSource
from durable_worker.client.events import RunEvent
from durable_worker.client.handles import RunHandle
from durable_worker.client.outcomes import output_of
from durable_worker.client.port import DEFAULT_TIMEOUT, OperatorPort, RunStart
from durable_worker.client.store import StorePort
from durable_worker.edge.plain import Codec
from durable_worker.protocol.base import TokenSource
from durable_worker.protocol.names import DEFAULT_NAMESPACE, Names
from durable_worker.replay.definitions import Directory
from durable_worker.stores.base import Store
from durable_worker.transports.base import DEFAULT_MAX_MESSAGE_BYTES, Transport

__all__ = [
    "BrokerPort",
    "Client",
    "Context",
    "ContextSource",
    "OperatorPort",
    "RunEvent",
    "RunHandle",
    "RunStart",
    "StorePort",
    "broker_client",
    "output_of",
    "store_client",
]


def broker_client(
    transport: Transport,
    *,
    names: Names | None = None,
    tenant: str = DEFAULT_NAMESPACE,
    token: TokenSource | None = None,
    timeout: timedelta = DEFAULT_TIMEOUT,
    directory: Directory | None = None,
    codec: Codec | None = None,
    context: ContextSource | None = None,
) -> Client:
    """A client of the operators that serve `names`; a request raises `NoOperatorError` after
    `timeout`.

    `token`: a tenant token, or a function that gives the current one; its tenant counts then, and
    `TenantTokenError` is raised if it is none.
    """
    port = BrokerPort(
        transport, names=names or Names(), tenant=tenant, token=token, timeout=timeout
    )
    return Client(port, directory=directory, codec=codec, context=context)


def store_client(
    store: Store,
    *,
    tenant: str = DEFAULT_NAMESPACE,
    directory: Directory | None = None,
    codec: Codec | None = None,
    context: ContextSource | None = None,
    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
    timeout: timedelta = DEFAULT_TIMEOUT,
) -> Client:
    """A client of whoever operates this database, now or later; what has to be answered raises
    `NoOperatorError` after `timeout`."""
    port = StorePort(store, tenant=tenant, max_message_bytes=max_message_bytes, timeout=timeout)
    return Client(port, directory=directory, codec=codec, context=context)
