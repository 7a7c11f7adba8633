"""Which broker a test session uses, and in which corner of it."""

import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from tests.broker import amqp
from tests.broker.node import BrokerNode
from tests.broker.programs import require_programs
from tests.broker.relay import Declared, relay_to
from tests.broker.vhosts import VhostError, VhostMaker, at_vhost, makers_for
from tests.servers import ServerUnavailableError

DEFAULT_PORT = 5672
PREFIX = "t-"
URL_VARIABLE = "DURABLE_BROKER_URL"
PORT_VARIABLE = "DURABLE_TEST_DEFAULT_PORT"
"""Port that is probed before a node is started; setting it to a free one forces a private node."""


@dataclass(frozen=True, slots=True)
class Broker:
    """What one session uses. `vhost` is None where it had to move in with others."""

    url: str
    vhost: str | None
    sweep: Callable[[], None] = lambda: None
    """Deletes all that tests left behind. Nobody may be connected."""


def new_prefix() -> str:
    return f"{PREFIX}{secrets.token_hex(5)}"


@contextmanager
def open_broker(
    environment: Mapping[str, str] = os.environ,
    *,
    makers: Callable[[str], Sequence[VhostMaker]] = makers_for,
) -> Iterator[Broker]:
    """The broker of `DURABLE_BROKER_URL`, else the one on the default port, else a private node.

    Raises `ServerUnavailableError`.
    """
    port = int(environment.get(PORT_VARIABLE, DEFAULT_PORT))
    stated = environment.get(URL_VARIABLE)
    url = stated or f"amqp://guest:guest@127.0.0.1:{port}/"
    why_not = amqp.refusal(url)
    if why_not is None:
        with _corner_of(url, makers(url)) as broker:
            yield broker
    elif stated:
        raise ServerUnavailableError(
            f"the broker of {URL_VARIABLE} ({_without_password(url)}) cannot be used: {why_not}. "
            f"Correct the variable, or unset it and the tests find or start a RabbitMQ."
        )
    else:
        programs = require_programs(port)
        with BrokerNode(programs=programs) as node:
            yield Broker(node.url(), "/")


@contextmanager
def _corner_of(url: str, makers: Sequence[VhostMaker]) -> Iterator[Broker]:
    vhost = f"durable-test-{secrets.token_hex(6)}"
    for maker in makers:
        try:
            maker.create(vhost)
        except VhostError:
            with suppress(VhostError):
                maker.delete(vhost)
            continue
        try:
            own = at_vhost(url, vhost)
            # rabbitmqctl may have spoken to another broker than the one that answers here.
            if amqp.refusal(own) is None:
                yield Broker(own, vhost, sweep=partial(_renew, maker, vhost))
                return
        finally:
            maker.delete(vhost)
    declared = Declared()
    try:
        with relay_to(url, declared) as relayed:
            yield Broker(relayed, None)
    finally:
        amqp.delete(
            url,
            queues=sorted(name for name in declared.queues if name.startswith(PREFIX)),
            exchanges=sorted(name for name in declared.exchanges if name.startswith(PREFIX)),
        )


def _renew(maker: VhostMaker, vhost: str) -> None:
    maker.delete(vhost)
    maker.create(vhost)


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return url.replace(f":{parts.password}@", ":***@", 1)
