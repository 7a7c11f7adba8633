"""RabbitMQ as the broker (protocol/README.md, "AMQP binding")."""

from durable_worker.transports.rabbitmq.address import TlsOptions, UrlFile
from durable_worker.transports.rabbitmq.lanes import Lane
from durable_worker.transports.rabbitmq.states import (
    Blocked,
    Connected,
    ConnectFailed,
    Connecting,
    ConsumerLost,
    ConsumerRestored,
    Disconnected,
    StateListener,
    TopologyRefused,
    TransportState,
    Unblocked,
)
from durable_worker.transports.rabbitmq.transport import RabbitTransport

__all__ = [
    "Blocked",
    "ConnectFailed",
    "Connected",
    "Connecting",
    "ConsumerLost",
    "ConsumerRestored",
    "Disconnected",
    "Lane",
    "RabbitTransport",
    "StateListener",
    "TlsOptions",
    "TopologyRefused",
    "TransportState",
    "Unblocked",
    "UrlFile",
]
