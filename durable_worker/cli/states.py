"""What the broker connection does, as log lines."""

import structlog

from durable_worker.cli.connecting import risks_of
from durable_worker.cli.durations import in_words
from durable_worker.cli.options import BrokerOptions
from durable_worker.transports.rabbitmq.states import (
    Blocked,
    Connected,
    ConnectFailed,
    Connecting,
    ConsumerLost,
    ConsumerRestored,
    Disconnected,
    TopologyRefused,
    TransportState,
    Unblocked,
)

log = structlog.get_logger("durable_worker.broker")


def warn_of_risks(options: BrokerOptions) -> None:
    for name, sentence in risks_of(options).items():
        log.warning(name, hint=sentence)


class ConnectionReporter:
    """Logs each change; `was_connected` tells whether the broker was ever reached."""

    def __init__(self) -> None:
        self.was_connected = False

    def __call__(self, state: TransportState) -> None:
        match state:
            case Connecting(url=url):
                log.debug("connecting", broker=url)
            case Connected(url=url, generation=generation):
                self.was_connected = True
                log.info("connected", broker=url, generation=generation)
            case ConnectFailed(attempt=attempt, retry_in=retry_in, reason=reason):
                log.warning(
                    "connect_failed", attempt=attempt, retry_in=in_words(retry_in), reason=reason
                )
            case Disconnected(reason=reason, retry_in=retry_in):
                log.warning("disconnected", retry_in=in_words(retry_in), reason=reason)
            case Blocked():
                log.warning("broker_blocked", reason="memory or disk alarm; sending waits")
            case Unblocked():
                log.info("broker_unblocked")
            case ConsumerLost(source=source, reason=reason):
                log.warning("consumer_lost", source=source, reason=reason)
            case ConsumerRestored(source=source):
                log.info("consumer_restored", source=source)
            case TopologyRefused(queue=queue, reason=reason):
                log.error("queue_refused", queue=queue, reason=reason)
