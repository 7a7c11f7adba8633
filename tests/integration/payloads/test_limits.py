"""What is too large for a message is refused before it is sent, and the limit is named."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from durable_worker import StepContext, StepFailedError, Worker, WorkflowContext
from durable_worker.client import Client, broker_client, store_client
from durable_worker.embedded import Embedded
from durable_worker.errors import (
    PayloadTooLargeError,
    RunFailedError,
    RunNotFoundError,
)
from durable_worker.operator.service import OperatorService
from durable_worker.payloads import ClaimCheck, FileBlobs, PayloadCodec
from durable_worker.protocol.names import Names
from durable_worker.stores.memory import MemoryStore
from durable_worker.stores.sqlite import SqliteStore
from durable_worker.transports.base import DEFAULT_MAX_MESSAGE_BYTES
from durable_worker.transports.rabbitmq import RabbitTransport
from durable_worker.worker.service import WorkerService

pytestmark = pytest.mark.anyio

PATIENCE = timedelta(seconds=60)
HUGE = 20 * 1024 * 1024
SMALL_LIMIT = 10_000
OPTION = "max_message_bytes, --max-message-bytes, DURABLE_MAX_MESSAGE_BYTES"


class Attempts:
    """A worker whose steps make as much as they are asked for, and how often they did."""

    def __init__(self, codec: PayloadCodec | None = None) -> None:
        self.made = 0
        self.worker = Worker(codec=codec)

        @self.worker.step("make", retries=3)
        async def make(size: int) -> str:
            self.made += 1
            return "x" * size

        @self.worker.step("measure")
        async def measure(text: str) -> int:
            return len(text)

        @self.worker.step("tell")
        async def tell(size: int, ctx: StepContext) -> str:
            ctx.info("much", text="x" * size)
            return "told"

        @self.worker.workflow("making")
        async def making(ctx: WorkflowContext, size: int) -> str:
            try:
                return f"{len(await ctx.step(make, size)):,} bytes"
            except StepFailedError as error:
                small = await ctx.step(make, 3)
                return f"{error.code}, retryable {error.retryable}, then {small}: {error.message}"

        @self.worker.workflow("passing")
        async def passing(ctx: WorkflowContext, size: int) -> int:
            return await ctx.step(measure, "x" * size)

        @self.worker.workflow("telling")
        async def telling(ctx: WorkflowContext, size: int) -> str:
            try:
                return await ctx.step(tell, size)
            except StepFailedError as error:
                return str(error.code)

        @self.worker.workflow("taking")
        async def taking(ctx: WorkflowContext, text: str) -> int:
            return len(text) + len(await ctx.wait_signal("more", returns=str))


@asynccontextmanager
async def over_a_broker(
    url: str, names: Names, worker: Worker, *, limit: int
) -> AsyncIterator[Client]:
    """Operator, worker and client as three processes would be: each with a transport."""

    def transport() -> RabbitTransport:
        return RabbitTransport(url, names=names, max_message_bytes=limit)

    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(MemoryStore())
        its, others = [await stack.enter_async_context(transport()) for _ in range(2)]
        operator = OperatorService(store, its, names=names)
        service = WorkerService(worker, others, names=names)
        group = await stack.enter_async_context(anyio.create_task_group())
        group.start_soon(operator.serve)
        group.start_soon(service.serve)
        async with broker_client(transport(), names=names, codec=worker.codec) as client:
            yield client
        service.request_stop()
        operator.request_stop()


@pytest.fixture(params=["memory", "sqlite", "rabbitmq"])
def place(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def opened(
    place: str, request: pytest.FixtureRequest, worker: Worker, *, limit: int
) -> AsyncIterator[Client]:
    if place == "rabbitmq":
        url, prefix = request.getfixturevalue("broker_url"), request.getfixturevalue("prefix")
        async with over_a_broker(url, Names(prefix=prefix), worker, limit=limit) as client:
            yield client
        return
    path: Path = request.getfixturevalue("tmp_path")
    database = None if place == "memory" else path / "runs.db"
    async with Embedded(worker, database=database, max_message_bytes=limit) as client:
        yield client


async def test_a_result_of_20_mb_fails_its_step_once_and_the_worker_lives_on(
    place: str, request: pytest.FixtureRequest
) -> None:
    attempts = Attempts()
    async with opened(place, request, attempts.worker, limit=DEFAULT_MAX_MESSAGE_BYTES) as client:
        with anyio.fail_after(PATIENCE.total_seconds()):
            told = await (await client.start("making", HUGE, returns=str)).result()
            after = await (await client.start("making", 100, returns=str)).result()
    assert told.startswith("payload-too-large, retryable False, then xxx: the step-result for ")
    assert "has 20,971," in told
    assert f"the limit is 16,777,216 ({OPTION})" in told
    assert "ClaimCheck in durable_worker.payloads" in told
    assert after == "100 bytes"
    assert attempts.made == 3


async def test_the_limit_is_an_option_and_holds_for_all_that_is_sent(
    place: str, request: pytest.FixtureRequest
) -> None:
    attempts = Attempts()
    large = "x" * SMALL_LIMIT
    async with opened(place, request, attempts.worker, limit=SMALL_LIMIT) as client:
        with anyio.fail_after(PATIENCE.total_seconds()):
            result = await (await client.start("making", SMALL_LIMIT, returns=str)).result()
            assert "the limit is 10,000" in result
            with pytest.raises(
                RunFailedError, match=r"workflow-decision.*limit is 10,000"
            ) as failed:
                await (await client.start("passing", SMALL_LIMIT)).result()
            assert failed.value.code == "payload-too-large"
            with pytest.raises(PayloadTooLargeError, match="limit is 10,000") as refused:
                await client.start("taking", large, run_id="r1")
            assert OPTION in str(refused.value)
            with pytest.raises(RunNotFoundError):
                await client.detail("r1")
            run = await client.start("taking", "abc", returns=int)
            with pytest.raises(PayloadTooLargeError, match="limit is 10,000"):
                await client.signal("more", large)
            await client.signal("more", "de")
            assert await run.result() == 5
            telling = await client.start("telling", SMALL_LIMIT, returns=str)
            assert await telling.result() == "payload-too-large"
            assert await (await client.start("making", 5, returns=str)).result() == "5 bytes"


async def test_a_claim_check_is_the_way_out(
    place: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    attempts = Attempts(PayloadCodec(ClaimCheck(FileBlobs(tmp_path / "blobs"))))
    async with opened(place, request, attempts.worker, limit=DEFAULT_MAX_MESSAGE_BYTES) as client:
        with anyio.fail_after(PATIENCE.total_seconds()):
            made = await (await client.start("making", HUGE, returns=str)).result()
            passed = await (await client.start("passing", HUGE, returns=int)).result()
    assert (made, passed) == ("20,971,520 bytes", HUGE)


async def test_a_client_of_a_database_refuses_what_no_operator_could_send(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "runs.db")
    async with store_client(store, max_message_bytes=SMALL_LIMIT) as client:
        with pytest.raises(PayloadTooLargeError, match="the input of run 'r1' has 10,002 bytes"):
            await client.start("taking", "x" * SMALL_LIMIT, run_id="r1")
        with pytest.raises(PayloadTooLargeError, match="the payload of signal 'more' has"):
            await client.signal("more", "x" * SMALL_LIMIT)
        with pytest.raises(RunNotFoundError):
            await client.detail("r1")
