"""Which AMQP client the processes of a test session use: `pytest --amqp-lane`."""

import os

from durable_worker.transports.rabbitmq import Lane

LANE_VARIABLE = "DURABLE_AMQP_LANE"
"""Read by the command line of every process that a test starts."""


def lane_of_the_session() -> Lane:
    return Lane(os.environ.get(LANE_VARIABLE, Lane.FAST))
