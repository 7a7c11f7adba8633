"""What a worker says about operators: that there is none, or one that it cannot talk to."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
from anyio import create_task_group
from msgspec import json

from durable_worker import Worker
from durable_worker.errors import BrokerRefusedError, ConnectionLostError
from durable_worker.operator.service import OperatorService
from durable_worker.protocol.codec import MessageType
from durable_worker.protocol.descriptor import ProtocolRange
from durable_worker.protocol.names import Names
from durable_worker.stores.memory import MemoryStore
from durable_worker.transports.base import Delivery, Envelope
from durable_worker.transports.memory import MemoryTransport
from durable_worker.worker.options import WorkerOptions
from durable_worker.worker.service import WorkerService
from tests.integration.worker.desk import eventually

pytestmark = pytest.mark.anyio
NAMES = Names(prefix="shop", namespace="acme")
TOMORROW = ProtocolRange(version=9, range=(8, 9))

Lines = list[Any]


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("durable_worker.worker.operators.LOOK_SECONDS", 0.01)
    monkeypatch.setattr("durable_worker.worker.operators.PATIENCE_SECONDS", 0.01)


@pytest.fixture
def lines() -> Iterator[Lines]:
    with structlog.testing.capture_logs() as captured:
        yield captured


class Countable(MemoryTransport):
    """Counts the looks, and can be away or refuse them."""

    looks = 0
    error: Exception | None = None

    async def consumers(self, queue: str) -> int:
        self.looks += 1
        if self.error is not None:
            raise self.error
        return await super().consumers(queue)


@pytest.fixture
async def transport() -> AsyncIterator[Countable]:
    async with Countable(names=NAMES) as opened:
        yield opened


@asynccontextmanager
async def serving(transport: Countable) -> AsyncIterator[WorkerService]:
    """A worker, and no operator."""
    worker = Worker()

    @worker.step("s")
    async def s() -> None: ...

    options = WorkerOptions(partition="eu", place="amqp://broker/shop")
    service = WorkerService(worker, transport, names=NAMES, options=options)
    async with create_task_group() as group:
        group.start_soon(service.serve)
        yield service
        service.request_stop()


@pytest.fixture
async def service(transport: Countable, lines: Lines) -> AsyncIterator[WorkerService]:
    async with serving(transport) as service:
        yield service


def told(lines: Lines, *events: str) -> list[str]:
    return [line["event"] for line in lines if line["event"] in events]


async def looked_again(transport: Countable) -> None:
    """Several looks later."""
    looks = transport.looks
    await eventually(lambda: transport.looks >= looks + 6)


async def attend(transport: MemoryTransport, *queues: str) -> Any:
    taken: list[Delivery] = []
    return await transport.consume(queues, taken.append, prefetch=1)


@pytest.mark.usefixtures("service")
async def test_a_worker_without_operator_says_once_where_it_listens_and_what_to_change(
    transport: Countable, lines: Lines
) -> None:
    await eventually(lambda: told(lines, "no_operator"))
    await looked_again(transport)
    warnings = [line for line in lines if line["event"] == "no_operator"]
    assert warnings == [
        {
            "event": "no_operator",
            "log_level": "warning",
            "prefix": "shop",
            "namespace": "acme",
            "broker": "amqp://broker/shop",
            "partition": "eu",
            "hint": "no task will come: nobody consumes shop-acme-results and "
            "shop-acme-decisions. Start the operator; if it runs, give both the same --prefix and "
            "--namespace, and the same broker and virtual host.",
        }
    ]


@pytest.mark.usefixtures("service")
async def test_an_operator_that_appears_is_told_once_and_so_is_its_going(
    transport: Countable, lines: Lines
) -> None:
    await eventually(lambda: told(lines, "no_operator"))
    results = await attend(transport, NAMES.results)
    await looked_again(transport)  # half an operator is none
    assert told(lines, "operator_found") == []
    await attend(transport, NAMES.decisions)
    await eventually(lambda: told(lines, "operator_found"))
    await looked_again(transport)
    await results.stop()
    await eventually(lambda: len(told(lines, "no_operator")) == 2)
    both = told(lines, "no_operator", "operator_found")
    assert both == ["no_operator", "operator_found", "no_operator"]


async def test_an_operator_that_is_there_is_not_worth_a_line(
    transport: Countable, lines: Lines
) -> None:
    await attend(transport, NAMES.results, NAMES.decisions)
    async with serving(transport):
        await looked_again(transport)
    assert told(lines, "no_operator", "operator_found") == []


async def test_an_operator_that_starts_beside_the_worker_is_waited_for(
    transport: Countable,
    lines: Lines,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("durable_worker.worker.operators.PATIENCE_SECONDS", 0.5)
    async with serving(transport):
        await eventually(lambda: transport.looks)
        await attend(transport, NAMES.results, NAMES.decisions)
        await looked_again(transport)
    assert told(lines, "no_operator", "operator_found") == []


@pytest.mark.usefixtures("service")
async def test_while_the_broker_is_away_nothing_is_said_about_operators(
    transport: Countable, lines: Lines
) -> None:
    transport.error = ConnectionLostError("away")
    await looked_again(transport)
    assert told(lines, "no_operator", "operator_found") == []
    transport.error = None
    await eventually(lambda: told(lines, "no_operator"))


@pytest.mark.usefixtures("service")
async def test_a_worker_that_may_not_look_at_queues_works_all_the_same(
    transport: Countable, lines: Lines
) -> None:
    transport.error = BrokerRefusedError("no permission")
    await eventually(lambda: told(lines, "operator_not_looked_for"))
    await transport.send(NAMES.tasks("s@eu"), Envelope("step-task", b"no task"))
    await eventually(lambda: told(lines, "message_refused"))


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize(
    ("protocol", "hint"),
    [
        ({"version": 9, "range": [8, 9]}, "Update durable-worker here"),
        ({"version": 9, "range": [8, 9], "extra": 1}, "speaks protocol 8"),
    ],
)
async def test_an_operator_of_another_protocol_is_named_once_with_both_ranges(
    transport: Countable, lines: Lines, protocol: dict[str, Any], hint: str
) -> None:
    await eventually(lambda: transport.looks)
    for sender in ("op-1", "op-1", "op-2"):
        body = json.encode({"from": sender, "protocol": protocol})
        await transport.broadcast(NAMES.workers, Envelope(MessageType.WHO, body))
    await eventually(lambda: len(told(lines, "operator_incompatible")) == 2)
    errors = [line for line in lines if line["event"] == "operator_incompatible"]
    assert [each["operator"] for each in errors] == ["op-1", "op-2"]
    for each in errors:
        assert each["log_level"] == "error"
        assert (each["operator_range"], each["worker_range"]) == ([8, 9], [1, 1])
        assert hint in each["hint"]


@pytest.mark.usefixtures("service")
async def test_operators_that_overlap_or_state_nothing_are_not_worth_a_line(
    transport: Countable, lines: Lines
) -> None:
    await eventually(lambda: transport.looks)
    announced: list[Envelope] = []
    await transport.listen(NAMES.workers, announced.append)
    for body in (
        b'{"from":"op-1"}',
        b'{"from":"op-2","protocol":{"version":3,"range":[1,3]}}',
        b'{"from":"op-3","protocol":null}',
        b'{"from":""}',
    ):
        await transport.broadcast(NAMES.workers, Envelope(MessageType.WHO, body))
        await eventually(lambda: announced and announced[-1].type == MessageType.WORKER_BEAT)
        announced.clear()
    assert told(lines, "operator_incompatible") == []
    assert told(lines, "who_malformed") == ["who_malformed"]


async def test_an_operator_and_a_worker_of_different_protocols_both_say_so(
    transport: Countable,
    lines: Lines,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in ("presence", "registry", "strangers"):
        monkeypatch.setattr(f"durable_worker.operator.{module}.OUR_PROTOCOL", TOMORROW)
    monkeypatch.setattr("durable_worker.operator.presence._CHECK_SECONDS", 0.01)
    monkeypatch.setattr("durable_worker.operator.presence.WHO_INTERVAL_SECONDS", 0.01)
    asked: list[Envelope] = []
    operator = OperatorService(MemoryStore(), transport, names=NAMES)
    async with create_task_group() as group:
        group.start_soon(operator.serve)
        await transport.listen(
            NAMES.workers, lambda each: asked.append(each) if each.type == "who" else None
        )
        # The operator has asked before the worker is there to hear it.
        await eventually(lambda: asked)
        async with serving(transport) as service:
            await eventually(lambda: told(lines, "worker_incompatible"))
            await eventually(lambda: told(lines, "operator_incompatible"))
        operator.request_stop()
    worker = next(line for line in lines if line["event"] == "worker_incompatible")
    assert worker["worker"] == service.descriptor.instance_id
    assert (worker["worker_range"], worker["operator_range"]) == ([1, 1], [8, 9])
    assert "until the worker is updated" in worker["hint"]
    assert json.decode(asked[-1].body)["protocol"] == {"version": 9, "range": [8, 9]}
    both = told(lines, "worker_incompatible", "operator_incompatible")
    assert sorted(both) == ["operator_incompatible", "worker_incompatible"]
