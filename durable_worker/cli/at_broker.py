"""A client of the operators behind a broker."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from durable_worker.cli.connecting import risks_of, transport_to
from durable_worker.cli.options import BrokerOptions
from durable_worker.cli.serving import tell
from durable_worker.client import Client, broker_client
from durable_worker.edge.plain import Codec
from durable_worker.errors import ConnectionLostError
from durable_worker.transports.rabbitmq.states import ConnectFailed, TransportState

CONNECT_SECONDS = 5.0
"""How long a command tries to reach the broker."""


@asynccontextmanager
async def open_client(
    broker: BrokerOptions, tenant: str, codec: Codec | None = None
) -> AsyncGenerator[Client]:
    """Raises `ConnectionLostError` if the broker cannot be reached in time."""
    reason = ""

    def note(state: TransportState) -> None:
        nonlocal reason
        if isinstance(state, ConnectFailed):
            reason = state.reason

    transport = transport_to(broker, on_state=note)
    for risk in risks_of(broker).values():
        tell(f"warning: {risk}")
    client = broker_client(transport, names=broker.names, tenant=tenant, codec=codec)
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await stack.enter_async_context(client)
        except TimeoutError:
            raise ConnectionLostError(
                f"{reason or 'the broker does not answer'}; gave up after {CONNECT_SECONDS:g} s"
            ) from None
        yield client
