"""What a worker does about messages that are out of the ordinary."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec import Raw, json

from durable_worker import Worker
from durable_worker.protocol.codec import MessageType
from durable_worker.protocol.names import Names
from durable_worker.protocol.results import ResultStatus
from durable_worker.protocol.runs import RequestResult, RunReply
from durable_worker.transports.base import ERROR_HEADER
from durable_worker.transports.memory import MemoryTransport
from durable_worker.worker.recorded import read_detail
from durable_worker.worker.step_context import StepContext
from tests.integration.worker.desk import serving

pytestmark = pytest.mark.anyio
NAMES = Names()


@pytest.fixture
async def transport() -> AsyncIterator[MemoryTransport]:
    async with MemoryTransport(names=NAMES) as opened:
        yield opened


@pytest.fixture
def worker() -> Worker:
    worker = Worker()

    @worker.step("s")
    async def s(value: Any = None) -> Any:
        return value

    @worker.step("talks")
    async def talks(ctx: StepContext) -> str:
        ctx.info("x" * 20_000_000)
        return "done"

    return worker


TASK = b'{"runId":"r","seq":3,"name":"s","stepId":"r:3","group":"s","attempt":1,'


@pytest.mark.parametrize(
    "spoiled",
    [
        b'"input":"\xff"}',
        b'"input":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'"context":{"n":' + b"9" * 5_000 + b"}}",
        b'"context":{"n":1e400}}',
        b'"input":"cut off',
        b'"transport":' + b'{"runId":' * 3_000,
    ],
    ids=["not UTF-8", "deep", "5,000 digits", "1e400", "cut off", "deep objects"],
)
async def test_what_still_names_its_step_fails_that_step(
    worker: Worker, transport: MemoryTransport, spoiled: bytes
) -> None:
    async with serving(worker, transport, NAMES) as desk:
        await desk.send("s", TASK + spoiled, MessageType.STEP_TASK)
        result, letter = await desk.result(), await desk.dead()
        assert (result.run_id, result.seq, result.status) == ("r", 3, ResultStatus.FAILED)
        assert result.error is not None
        assert result.error.retryable is False
        assert letter.body == TASK + spoiled
        assert len(letter.headers[ERROR_HEADER]) < 1_000


@pytest.mark.parametrize("value", [b"[" * 600 + b"]" * 600, b'{"a":' * 900 + b"1" + b"}" * 900])
async def test_a_value_that_could_not_be_read_within_a_history_fails_its_step_at_once(
    worker: Worker, transport: MemoryTransport, value: bytes
) -> None:
    async with serving(worker, transport, NAMES) as desk:
        await desk.send("s", TASK + b'"input":' + value + b"}", MessageType.STEP_TASK)
        result = await desk.result()
    assert result.error is not None
    assert "nested more than 500 levels deep" in result.error.message


async def test_ids_longer_than_the_broker_carries_are_answered_without_a_message_id(
    worker: Worker, transport: MemoryTransport
) -> None:
    task = {
        "runId": "r" * 300, "seq": 1, "name": "s", "stepId": "x" * 1_000, "group": "s",
        "attempt": 1, "input": 5,
    }  # fmt: skip
    async with serving(worker, transport, NAMES) as desk:
        await desk.send("s", json.encode(task), MessageType.STEP_TASK)
        result = await desk.result()
    assert (result.step_id, result.status) == ("x" * 1_000, ResultStatus.COMPLETED)


async def test_a_log_line_that_no_message_can_carry_costs_only_itself(
    worker: Worker, transport: MemoryTransport
) -> None:
    async with serving(worker, transport, NAMES) as desk:
        await desk.send_step("talks")
        await desk.result()
        await desk.send_step("s", 1)
        assert bytes((await desk.result()).output) == b"1"  # type: ignore[arg-type]


def test_a_reply_that_cannot_be_read_is_as_good_as_none() -> None:
    for data in (b"[" * 5_000 + b"]" * 5_000, b'{"run":"\xff"}', b"{", b"1"):
        reply = RunReply(request_id="q", result=RequestResult(ok=True, data=Raw(data)))
        assert read_detail(reply, "r") is None
