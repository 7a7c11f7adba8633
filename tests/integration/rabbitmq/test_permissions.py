"""Users who may do what their role needs and no more (protocol/README.md, "Permissions")."""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import aio_pika
import anyio
import pytest
from aio_pika.abc import AbstractChannel
from aiormq.exceptions import ChannelAccessRefused

from durable_worker import Worker, WorkflowContext
from durable_worker.client import Client, broker_client
from durable_worker.errors import BrokerRefusedError, RunNotFoundError
from durable_worker.operator.options import OperatorOptions
from durable_worker.operator.service import OperatorService
from durable_worker.protocol.codec import MessageType, encode
from durable_worker.protocol.keys import Keyring
from durable_worker.protocol.names import Names
from durable_worker.protocol.runs import RunStatus, StartRun
from durable_worker.protocol.tokens import ANY_TENANT, TenantTokens
from durable_worker.stores.memory import MemoryStore
from durable_worker.transports.base import Envelope
from durable_worker.transports.rabbitmq import RabbitTransport
from durable_worker.worker.options import WorkerOptions
from durable_worker.worker.service import WorkerService
from tests.broker import BrokerNode
from tests.conformance.transports.inbox import Inbox
from tests.integration.operator.waiting import eventually

pytestmark = [pytest.mark.broker, pytest.mark.anyio]

NAMES = Names(prefix="shop")
RING = Keyring({"k1": bytes(range(32))})
TOKENS = TenantTokens(RING)
LATER = datetime.now(UTC) + timedelta(hours=1)
README = Path(__file__).parents[3] / "protocol" / "README.md"
PASSWORD = "s3cret"
TASKS = "greet|greeting"


def patterns(role: str) -> list[str]:
    """Configure, write and read, as the specification has them."""
    row = re.search(rf"^\| {role} \|(.*)\|$", README.read_text(), re.MULTILINE)
    assert row is not None, role
    cells = [each.strip().strip("`") for each in row[1].replace("\\|", "\0").split("|")]
    return [
        each.replace("\0", "|").replace("P-", "shop-").replace("TASKS", TASKS) for each in cells[:3]
    ]


@dataclass
class House:
    node: BrokerNode
    store: MemoryStore

    def url(self, user: str) -> str:
        return self.node.url().replace("guest:guest", f"{user}:{PASSWORD}")

    def transport(self, user: str) -> RabbitTransport:
        return RabbitTransport(self.url(user), names=NAMES)

    def client(self, user: str, tenant: str) -> Client:
        token = TOKENS.issue(tenant, expires=LATER)
        return broker_client(
            self.transport(user), names=NAMES, token=token, timeout=timedelta(seconds=15)
        )


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerNode]:
    file = tmp_path_factory.mktemp("broker") / "users.json"
    file.write_text(json.dumps(definitions()))
    with BrokerNode() as node:
        node.ctl("import_definitions", str(file))
        yield node


def definitions() -> dict[str, list[dict[str, str]]]:
    """What `add_user`, `set_permissions` and `set_topic_permissions` would do, in one go."""
    roles = {"operator": "operator", "worker": "worker"}
    tenants = ("acme", "umbrella")
    users = roles | dict.fromkeys(tenants, "client of a tenant")
    kinds = ("configure", "write", "read")
    return {
        "users": [{"name": each, "password": PASSWORD, "tags": ""} for each in users],
        "permissions": [
            {"user": user, "vhost": "/", **dict(zip(kinds, patterns(role), strict=True))}
            for user, role in users.items()
        ],
        "topic_permissions": [
            {"user": each, "vhost": "/", "exchange": name, "write": "^$", "read": f"^{each}$"}
            for each in tenants
            for name in (NAMES.tenant_events, NAMES.tenant_replies)
        ],
    }


@pytest.fixture
async def house(node: BrokerNode) -> AsyncIterator[House]:
    """The operator and a worker, each as its own user."""
    worker = Worker()

    @worker.step("greet")
    async def greet(name: str) -> str:
        return f"hello {name}"

    @worker.workflow("greeting")
    async def greeting(ctx: WorkflowContext, name: str) -> str:
        return await ctx.step(greet, name)

    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        store = await enter(MemoryStore())
        house = House(node, store)
        operator = OperatorService(
            store,
            await enter(house.transport("operator")),
            names=NAMES,
            options=OperatorOptions(tenant_keys=RING),
        )
        service = WorkerService(
            worker,
            await enter(house.transport("worker")),
            names=NAMES,
            options=WorkerOptions(token=TOKENS.issue(ANY_TENANT, expires=LATER)),
        )
        group = await enter(anyio.create_task_group())
        group.start_soon(operator.serve)
        await _topology_is_there(house)
        group.start_soon(service.serve)
        yield house
        service.request_stop()
        operator.request_stop()


async def _topology_is_there(house: House) -> None:
    """The operator has declared what the others may only use."""
    async with house.transport("operator") as looking:
        await looking.wait_connected()

        async def is_readd() -> bool:
            return await looking.consumers(NAMES.dead) > 0

        await eventually(is_readd, within=30)


async def test_each_role_can_do_its_work_from_start_to_end(house: House) -> None:
    async with house.client("acme", "acme") as acme, house.client("umbrella", "umbrella") as other:
        handle = await acme.start("greeting", "you", returns=str, run_id="r1")
        assert await handle.result(timeout=timedelta(seconds=30)) == "hello you"
        assert (await handle.detail()).run.status is RunStatus.COMPLETED
        with pytest.raises(RunNotFoundError):
            await other.detail("r1")


@pytest.fixture
async def channel_of(house: House) -> AsyncIterator[Callable[[str], Awaitable[AbstractChannel]]]:
    async with AsyncExitStack() as stack:

        async def opened(user: str) -> AbstractChannel:
            connection = await stack.enter_async_context(await aio_pika.connect(house.url(user)))
            return await connection.channel()

        yield opened


async def test_a_worker_reads_neither_answers_nor_requests_and_removes_nothing(
    house: House, channel_of: Callable[[str], Awaitable[AbstractChannel]]
) -> None:
    for queue in (
        NAMES.results,
        NAMES.decisions,
        NAMES.start_run,
        NAMES.run_request,
        NAMES.dead,
        NAMES.tasks("refund"),
    ):
        for forbidden in (_read, _purge, _delete, _declare):
            with pytest.raises(ChannelAccessRefused):
                await forbidden(await channel_of("worker"), queue)
    for exchange in (NAMES.tenant_events, NAMES.tenant_replies, NAMES.heartbeat):
        with pytest.raises(ChannelAccessRefused):
            await _bind(await channel_of("worker"), exchange, "#")
    for exchange in (NAMES.run_reply, NAMES.tenant_events, NAMES.tenant_replies):
        with pytest.raises(ChannelAccessRefused):
            await _publish(await channel_of("worker"), exchange, "acme")


async def test_a_client_reads_what_concerns_its_tenant_only(
    house: House, channel_of: Callable[[str], Awaitable[AbstractChannel]]
) -> None:
    for exchange in (NAMES.tenant_events, NAMES.tenant_replies):
        await _bind(await channel_of("acme"), exchange, "acme")
        for topic in ("umbrella", "#", "*"):
            with pytest.raises(ChannelAccessRefused):
                await _bind(await channel_of("acme"), exchange, topic)
    for exchange in (NAMES.run_reply, NAMES.control, NAMES.workers, NAMES.heartbeat):
        with pytest.raises(ChannelAccessRefused):
            await _bind(await channel_of("acme"), exchange, "")
        with pytest.raises(ChannelAccessRefused):
            await _publish(await channel_of("acme"), exchange, "")
    for queue in (NAMES.tasks("greet"), NAMES.results, NAMES.run_request, NAMES.dead):
        for forbidden in (_read, _purge, _delete, _declare):
            with pytest.raises(ChannelAccessRefused):
                await forbidden(await channel_of("acme"), queue)


async def test_what_no_permission_keeps_a_worker_from_its_token_does(house: House) -> None:
    """Whoever may publish to the default exchange reaches every queue."""
    message = StartRun(tenant="acme", workflow="greeting", run_id="stolen")
    async with house.transport("worker") as worker:
        await worker.wait_connected()
        envelope = Envelope(MessageType.START_RUN, encode(message), "stolen")
        await worker.send(NAMES.start_run, envelope)

        async def is_kept() -> bool:
            return len(await house.store.dead_letters(limit=10)) == 1

        await eventually(is_kept)
    assert await house.store.load("stolen") is None


async def test_what_is_not_there_and_not_for_us_to_create_is_an_error_that_says_so(
    house: House,
) -> None:
    async with house.transport("worker") as worker:
        await worker.wait_connected()
        consuming = partial(worker.consume, [NAMES.tasks("refund")], Inbox(), prefetch=1)
        for forbidden in (partial(worker.declare, [NAMES.tasks("refund")]), consuming):
            with pytest.raises(BrokerRefusedError, match="shop-tasks-refund"):
                await forbidden()


async def _read(channel: AbstractChannel, queue: str) -> None:
    await (await channel.get_queue(queue, ensure=False)).get(fail=False)


async def _purge(channel: AbstractChannel, queue: str) -> None:
    await (await channel.get_queue(queue, ensure=False)).purge()


async def _delete(channel: AbstractChannel, queue: str) -> None:
    await channel.queue_delete(queue)


async def _declare(channel: AbstractChannel, queue: str) -> None:
    await channel.declare_queue(queue, durable=True)


async def _bind(channel: AbstractChannel, exchange: str, topic: str) -> None:
    queue = await channel.declare_queue("", exclusive=True)
    await queue.bind(exchange, topic)


async def _publish(channel: AbstractChannel, exchange: str, topic: str) -> None:
    target = await channel.get_exchange(exchange, ensure=False)
    await target.publish(aio_pika.Message(b"{}"), topic, mandatory=False)
