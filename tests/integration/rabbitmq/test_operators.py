"""Who consumes on a real broker, and what a worker says when nobody takes its answers."""

from typing import Any

import anyio
import pytest
import structlog

from durable_worker import Worker
from durable_worker.errors import ConnectionLostError
from durable_worker.protocol.names import Names
from durable_worker.transports.base import Delivery, Envelope
from durable_worker.transports.rabbitmq import Connected, Disconnected, RabbitTransport
from durable_worker.worker.options import WorkerOptions
from durable_worker.worker.service import WorkerService
from tests.conformance.transports.inbox import Inbox
from tests.integration.rabbitmq.conftest import States
from tests.integration.rabbitmq.proxy import Proxy
from tests.integration.worker.desk import eventually

pytestmark = pytest.mark.broker


async def test_a_worker_without_operator_says_so_and_says_when_one_appears(
    broker_url: str, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("durable_worker.worker.operators.LOOK_SECONDS", 0.05)
    monkeypatch.setattr("durable_worker.worker.operators.PATIENCE_SECONDS", 0.05)
    worker = Worker()

    @worker.step("s")
    async def s() -> None: ...

    def told() -> list[Any]:
        about = ("no_operator", "operator_found")
        return [(each["event"], each.get("broker")) for each in lines if each["event"] in about]

    options = WorkerOptions(place="amqp://there/vhost")
    with structlog.testing.capture_logs() as lines:
        async with RabbitTransport(broker_url, names=names) as transport:
            service = WorkerService(worker, transport, names=names, options=options)
            async with anyio.create_task_group() as group:
                group.start_soon(service.serve)
                await eventually(told)
                async with RabbitTransport(broker_url, names=names) as operator:
                    queues = [names.results, names.decisions]
                    await operator.consume(queues, Inbox[Delivery](), prefetch=1)
                    await eventually(lambda: len(told()) == 2)
                await eventually(lambda: len(told()) == 3)
                service.request_stop()
    missing = ("no_operator", "amqp://there/vhost")
    assert told() == [missing, ("operator_found", None), missing]


async def test_looking_at_a_queue_that_is_not_there_costs_no_consumer(
    broker_url: str, names: Names, states: States
) -> None:
    inbox = Inbox[Delivery]()
    async with RabbitTransport(broker_url, names=names, on_state=states) as transport:
        await transport.consume([names.results], inbox, prefetch=1)
        for _ in range(5):
            assert await transport.consumers(names.tasks("nowhere")) == 0
        assert await transport.consumers(names.results) == 1
        await transport.send(names.results, Envelope("step-result", b"{}", message_id="m"))
        await (await inbox.next()).ack()
    assert [type(state) for state in states.seen if isinstance(state, Disconnected)] == []


async def test_while_the_broker_is_away_a_look_fails_and_after_that_it_works_again(
    proxy: Proxy, names: Names, states: States
) -> None:
    async with RabbitTransport(proxy.url, names=names, on_state=states) as transport:
        await transport.consume([names.results], Inbox[Delivery](), prefetch=1)
        await proxy.go_away()
        await states.until(Disconnected)
        with pytest.raises(ConnectionLostError, match="away at present"):
            await transport.consumers(names.results)
        await proxy.listen()
        await states.until(Connected, count=2)
        await eventually_consumed(transport, names.results)


async def eventually_consumed(transport: RabbitTransport, queue: str) -> None:
    with anyio.fail_after(10):
        while await transport.consumers(queue) != 1:  # noqa: ASYNC110 - the broker has no event
            await anyio.sleep(0.02)
