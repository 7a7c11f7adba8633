"""What a client hears of a run while its connection is cut."""

from contextlib import aclosing

import anyio
import pytest

from durable_worker.client import broker_client
from durable_worker.operator.service import OperatorService
from durable_worker.protocol.names import Names
from durable_worker.stores.memory import MemoryStore
from durable_worker.transports.rabbitmq import RabbitTransport
from durable_worker.worker.service import WorkerService
from tests.conformance.clients.app import stages, worker
from tests.integration.rabbitmq.proxy import Proxy

pytestmark = [pytest.mark.anyio, pytest.mark.broker]


async def test_what_happens_while_nobody_can_hear_of_it_is_told_once_afterwards(
    broker_url: str, prefix: str, proxy: Proxy
) -> None:
    names = Names(prefix=prefix)
    ours = RabbitTransport(broker_url, names=names)
    operator = OperatorService(store := MemoryStore(), ours, names=names)
    theirs = RabbitTransport(broker_url, names=names)
    service = WorkerService(worker, theirs, names=names)
    near = broker_client(RabbitTransport(broker_url, names=names), names=names, directory=worker)
    far = broker_client(RabbitTransport(proxy.url, names=names), names=names, directory=worker)
    told: list[tuple[str, object]] = []
    with anyio.fail_after(60):
        async with store, ours, theirs, near, far, anyio.create_task_group() as group:
            group.start_soon(operator.serve)
            group.start_soon(service.serve)
            handle = await near.start(stages, 4)
            async with aclosing(far.handle(handle.run_id, stages).events(history=True)) as events:
                async for event in events:
                    if event.type == "run.suspended":
                        continue
                    told.append((event.type, event.read()))
                    if event.type == "run.started":
                        await handle.update("next", 0)
                    if told[-1] == ("step.completed", 0):
                        await proxy.go_away()
                        for number in (1, 2, 3):
                            await handle.update("next", number)
                        await handle.wait()
                        await proxy.listen()
            service.request_stop(hurry=True)
            operator.request_stop()
    assert told == [
        ("run.started", None),
        *[("step.completed", 2 * number) for number in range(4)],
        ("run.completed", 12),
    ]
