"""A RabbitMQ for the tests: the one that runs already, or a private node that leaves no trace."""

from tests.broker.choice import Broker, new_prefix, open_broker
from tests.broker.node import BrokerNode

__all__ = ["Broker", "BrokerNode", "new_prefix", "open_broker"]
