"""AMQP 0-9-1 as a client speaks it to RabbitMQ.

`Machine` is the protocol without I/O. `AmqpConnection` is its shell, an `asyncio.BufferedProtocol`
to be used from when `opened()` returns; its channels offer what `lanes.Channel` says.
`fast.connect` opens one as the transport does, TLS and the socket of the heartbeat thread included.
"""
