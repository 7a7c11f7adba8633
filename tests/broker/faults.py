"""What goes wrong before a test has a broker."""


class BrokerUnavailableError(Exception):
    """No RabbitMQ can be had; `str(error)` is a sentence that says what to do."""
