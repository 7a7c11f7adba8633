"""What lies on the broker is what protocol/README.md says, read back by a client of its own."""

import aio_pika
import pytest
from aio_pika import ExchangeType
from pamqp.common import FieldValue

from durable_worker.protocol.names import Names
from durable_worker.transports.base import Delivery, Envelope
from durable_worker.transports.rabbitmq import RabbitTransport
from tests.conformance.transports.inbox import Inbox

pytestmark = [pytest.mark.anyio, pytest.mark.broker]

WORK = {
    "x-queue-type": "quorum",
    "x-delivery-limit": 10,
    "x-overflow": "reject-publish",
    "x-dead-letter-exchange": "",
    "x-dead-letter-strategy": "at-least-once",
}


async def test_queues_and_exchanges_are_declared_as_the_protocol_fixes_them(
    broker_url: str, prefix: str
) -> None:
    names = Names(prefix=prefix, namespace="acme")
    work = {**WORK, "x-dead-letter-routing-key": f"{prefix}-acme-dead"}
    taken: list[Delivery] = []
    async with RabbitTransport(broker_url, names=names) as transport:
        await transport.declare([names.results, names.dead])
        await transport.consume([names.tasks("a-b@eu")], taken.append, prefetch=1)
        async with await aio_pika.connect(broker_url) as connection:
            channel = await connection.channel()
            # A declare with any other argument would be refused.
            for queue in (f"{prefix}-acme-results", f"{prefix}-acme-tasks-a-b@eu"):
                await channel.declare_queue(queue, durable=True, arguments=work)
            await channel.declare_queue(
                f"{prefix}-acme-dead", durable=True, arguments={"x-queue-type": "quorum"}
            )
            for exchange in ("control", "heartbeat", "run-reply", "workers"):
                await channel.declare_exchange(
                    f"{prefix}-acme-{exchange}", ExchangeType.FANOUT, durable=True
                )
            await channel.declare_exchange(
                f"{prefix}-acme-tenant-events", ExchangeType.TOPIC, durable=True
            )


@pytest.mark.parametrize("stated", ["9" * 5_000, "one", "", -1.5, True])
async def test_a_protocol_header_that_cannot_be_read_arrives_as_a_version_that_nobody_speaks(
    broker_url: str, prefix: str, stated: FieldValue
) -> None:
    names = Names(prefix=prefix)
    inbox = Inbox[Delivery]()
    async with (
        RabbitTransport(broker_url, names=names) as transport,
        await aio_pika.connect(broker_url) as connection,
    ):
        await transport.consume([names.results], inbox, prefetch=2)
        channel = await connection.channel()
        for header in (stated, "1"):
            message = aio_pika.Message(b"{}", headers={"durable-protocol": header})
            await channel.default_exchange.publish(message, names.results)
        odd, plain = await inbox.take(2)
        assert (odd.envelope.protocol, plain.envelope.protocol) == (0, 1)
        await transport.send(names.dead, odd.envelope)


async def test_a_message_carries_the_properties_of_the_protocol_and_nothing_but_the_body(
    broker_url: str, prefix: str
) -> None:
    names = Names(prefix=prefix)
    async with RabbitTransport(broker_url, names=names) as transport:
        await transport.declare([names.results])
        await transport.send(names.results, Envelope("step-result", b'{"runId":"r"}', "r:0:1"))
        async with await aio_pika.connect(broker_url) as connection:
            channel = await connection.channel()
            queue = await channel.get_queue(names.results)
            message = await queue.get(timeout=5)
            assert message is not None
            await message.ack()
    assert message.body == b'{"runId":"r"}'
    assert (message.type, message.message_id) == ("step-result", "r:0:1")
    assert (message.content_type, message.delivery_mode) == ("application/json", 2)
    assert {k: v for k, v in message.headers.items() if not k.startswith("x-")} == {
        "durable-protocol": 1
    }
    assert message.exchange == ""
