"""A served worker as a whole: what it refuses, how it drains, how it makes itself known."""

from collections.abc import AsyncIterator
from datetime import timedelta

import anyio
import pytest
from msgspec import json

from durable_worker import StepContext, Worker
from durable_worker.protocol import codec
from durable_worker.protocol.codec import MessageType
from durable_worker.protocol.descriptor import Lifecycle
from durable_worker.protocol.names import Names
from durable_worker.protocol.results import ResultStatus
from durable_worker.transports.base import ERROR_HEADER, Envelope
from durable_worker.transports.memory import MemoryTransport
from tests.integration.worker.desk import eventually, serving

pytestmark = pytest.mark.anyio
NAMES = Names()


@pytest.fixture
async def transport() -> AsyncIterator[MemoryTransport]:
    async with MemoryTransport(names=NAMES) as opened:
        yield opened


@pytest.mark.parametrize(
    ("body", "message_type", "protocol", "reason"),
    [
        (b"not json", None, 1, "not a valid step-task message"),
        (b'{"runId":"r","seq":3,"name":"s"}', None, 1, "missing required field"),
        (b'{"runId":"r","seq":3,"stepId":"r:3","name":"s","group":"s","attempt":1}', None, 9,
         "protocol 9 is not supported"),
    ],
)  # fmt: skip
async def test_a_message_that_cannot_be_understood_goes_to_the_dead_queue_with_the_reason(
    transport: MemoryTransport,
    body: bytes,
    message_type: str | None,
    protocol: int,
    reason: str,
) -> None:
    worker = Worker()

    @worker.step("s")
    async def s() -> None: ...

    async with serving(worker, transport, NAMES) as desk:
        await desk.send("s", body, message_type, protocol=protocol)
        dead = await desk.dead()
        if b"runId" in body:
            result = await desk.result()
            assert (result.run_id, result.seq, result.status) == ("r", 3, ResultStatus.FAILED)
            assert result.error is not None
            assert reason in result.error.message
        else:
            assert desk.unread_results() == 0
    assert dead.body == body
    assert reason in dead.headers[ERROR_HEADER]


async def test_a_turn_that_cannot_be_understood_is_answered_with_a_failed_decision(
    transport: MemoryTransport,
) -> None:
    worker = Worker()

    @worker.step("s")
    async def s() -> None: ...

    body = b'{"taskId":"t-1","runId":"r","workflow":"s","history":[{"seq":-1}]}'
    async with serving(worker, transport, NAMES) as desk:
        await desk.send("s", body, MessageType.WORKFLOW_TASK)
        decision = await desk.decision()
        await desk.dead()
    assert (decision.task_id, decision.run_id) == ("t-1", "r")
    assert decision.error is not None


async def test_a_result_over_the_size_limit_fails_its_step_and_names_the_limit() -> None:
    worker = Worker()

    @worker.step("huge")
    async def huge() -> str:
        return "x" * 20_000

    async with (
        MemoryTransport(names=NAMES, max_message_bytes=2_000) as transport,
        serving(worker, transport, NAMES) as desk,
    ):
        await desk.send_step("huge")
        result = await desk.result()
    assert result.error is not None
    assert (result.error.code, result.error.retryable) == ("payload-too-large", False)
    assert "limit is 2,000" in result.error.message


async def test_a_report_over_the_size_limit_is_lost_and_the_worker_lives_on() -> None:
    worker = Worker()

    @worker.step("chatty")
    async def chatty(size: int, ctx: StepContext) -> str:
        ctx.info("much", text="x" * size)
        return "told"

    async with (
        MemoryTransport(names=NAMES, max_message_bytes=10_000) as transport,
        serving(worker, transport, NAMES) as desk,
    ):
        await desk.send_step("chatty", 20_000)
        failed = await desk.result()
        await desk.send_step("chatty", 10)
        told = await desk.result()
    assert failed.error is not None
    assert failed.error.code == "payload-too-large"
    assert bytes(told.output) == b'"told"'


async def test_a_drain_finishes_what_runs_and_gives_back_what_waits(
    transport: MemoryTransport,
) -> None:
    worker = Worker()
    started = anyio.Event()
    release = anyio.Event()

    @worker.step("slow")
    async def slow() -> str:
        started.set()
        await release.wait()
        return "done"

    async with serving(worker, transport, NAMES, concurrency=1) as desk:
        await desk.send_step("slow")
        await started.wait()
        await desk.send_step("slow")
        await anyio.wait_all_tasks_blocked()
        desk.service.request_stop()
        await anyio.wait_all_tasks_blocked()
        release.set()
        result = await desk.result()
    assert bytes(result.output) == b'"done"'
    assert transport.depth(NAMES.tasks("slow")) == 1
    beats = [codec.WORKER_BEAT.decode(e.body) for e in desk.workers if e.type == "worker-beat"]
    assert beats[0].lifecycle is Lifecycle.UP
    assert [b.lifecycle for b in beats[-2:]] == [Lifecycle.DRAINING, Lifecycle.STOPPED]


async def test_a_hurried_stop_cancels_running_steps_and_gives_their_messages_back(
    transport: MemoryTransport,
) -> None:
    worker = Worker()
    started = anyio.Event()

    @worker.step("endless")
    async def endless() -> None:
        started.set()
        await anyio.sleep_forever()

    async with serving(worker, transport, NAMES, grace=timedelta(hours=1)) as desk:
        await desk.send_step("endless")
        await started.wait()
        desk.service.request_stop(hurry=True)
    assert transport.depth(NAMES.tasks("endless")) == 1


async def test_a_worker_announces_itself_and_answers_who(transport: MemoryTransport) -> None:
    worker = Worker()

    @worker.step("extraction:page")
    async def page() -> None: ...

    async with serving(worker, transport, NAMES) as desk:
        await eventually(lambda: len(desk.workers) == 2)
        first = codec.WORKER_DESCRIPTOR.decode(desk.workers[0].body)
        await transport.broadcast(NAMES.workers, Envelope(MessageType.WHO, b'{"from":"op"}'))
        await eventually(lambda: len(desk.workers) == 5)
    assert first.groups == ["extraction-page"]
    assert first.descriptor.steps == ["extraction:page"]
    assert json.decode(desk.workers[1].body)["lifecycle"] == "up"
