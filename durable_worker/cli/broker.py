"""Which broker is meant."""

import os

from durable_worker.cli.options import BROKER_VARIABLE, DEFAULT_BROKER, BrokerOptions


def stated_url(options: BrokerOptions) -> str | None:
    """What the command line says, else the environment."""
    return options.url or os.environ.get(BROKER_VARIABLE) or None


def broker_url(options: BrokerOptions) -> str:
    return stated_url(options) or DEFAULT_BROKER
