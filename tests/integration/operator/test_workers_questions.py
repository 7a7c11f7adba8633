"""A worker asks an operator of several tenants about a step that comes a second time."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
import structlog

from durable_worker import Worker, WorkflowContext
from durable_worker.client import broker_client
from durable_worker.operator.options import OperatorOptions
from durable_worker.protocol.base import TokenSource
from durable_worker.protocol.codec import MessageType, encode
from durable_worker.protocol.keys import Keyring
from durable_worker.protocol.names import Names
from durable_worker.protocol.runs import RunStatus
from durable_worker.protocol.tasks import StepTask
from durable_worker.protocol.tokens import ANY_TENANT, TenantTokens
from durable_worker.stores.memory import MemoryStore
from durable_worker.transports.base import RESENT_HEADER, Envelope
from durable_worker.transports.memory import MemoryTransport
from durable_worker.worker.options import WorkerOptions
from durable_worker.worker.service import WorkerService
from tests.integration.operator.scripted import operating
from tests.integration.operator.waiting import eventually

pytestmark = pytest.mark.anyio

NAMES = Names()
RING = Keyring({"k1": bytes(range(32))})
TOKENS = TenantTokens(RING)
LATER = datetime.now(UTC) + timedelta(hours=1)
REPEATED = Envelope(
    MessageType.STEP_TASK,
    encode(StepTask(run_id="r", seq=0, name="pay", step_id="r:0", group="pay", attempt=1)),
    "r:0:1",
    headers={RESENT_HEADER: "0"},
)


async def runs_of_pay(token: TokenSource | None) -> tuple[int, list[str]]:
    """How often the step of `acme` runs if its task comes again to another worker, and what that
    one says."""
    ran: list[str] = []
    worker = Worker()

    @worker.step("pay")
    async def pay(ctx: object = None) -> str:
        ran.append("pay")
        return "paid"

    @worker.workflow("buying")
    async def buying(ctx: WorkflowContext) -> str:
        return await ctx.step(pay)

    def service() -> WorkerService:
        return WorkerService(
            worker, transport, names=NAMES, options=WorkerOptions(token=token, concurrency=5)
        )

    client_token = TOKENS.issue("acme", expires=LATER)
    options = OperatorOptions(tenant_keys=RING)
    async with (
        MemoryStore() as store,
        MemoryTransport(names=NAMES) as transport,
        operating(store, transport, NAMES, options=options),
        asyncio.TaskGroup() as group,
        broker_client(transport, names=NAMES, token=client_token) as client,
    ):
        first, second = service(), service()
        group.create_task(first.serve())
        handle = await client.start("buying", run_id="r")
        run = await handle.wait(timeout=timedelta(seconds=20))
        assert run.status is RunStatus.COMPLETED
        first.request_stop()
        with structlog.testing.capture_logs() as lines:
            group.create_task(second.serve())
            await transport.declare([NAMES.tasks("pay")])
            await transport.send(NAMES.tasks("pay"), REPEATED)
            await eventually(lambda: transport.depth(NAMES.tasks("pay")) == 0, within=20)
        second.request_stop()
    events = ("repeated_step_skipped", "operator_refused_question")
    return len(ran), [each["event"] for each in lines if each["event"] in events]


async def test_with_a_workers_token_a_recorded_step_is_not_run_again() -> None:
    token = TOKENS.issue(ANY_TENANT, expires=LATER)
    assert await runs_of_pay(token) == (1, ["repeated_step_skipped"])
    assert await runs_of_pay(lambda: token) == (1, ["repeated_step_skipped"])


async def test_without_one_it_runs_again_and_the_log_says_what_is_missing() -> None:
    expired = TOKENS.issue(ANY_TENANT, expires=datetime(2020, 1, 1, tzinfo=UTC))
    for token in (None, expired):
        assert await runs_of_pay(token) == (2, ["operator_refused_question"])
