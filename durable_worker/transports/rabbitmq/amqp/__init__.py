"""AMQP 0-9-1 as a client speaks it to RabbitMQ: the protocol without I/O, and its asyncio shell."""
