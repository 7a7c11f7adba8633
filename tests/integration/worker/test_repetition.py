"""A task that another process may have run already is asked about before it is run."""

import time
from collections.abc import AsyncIterator
from datetime import timedelta

import anyio
import msgspec
import pytest
from msgspec import Raw, json

from durable_worker import Worker
from durable_worker.protocol import codec
from durable_worker.protocol.codec import MessageType
from durable_worker.protocol.names import Names
from durable_worker.protocol.runs import GetRunDetail, RequestError, RequestResult, RunReply
from durable_worker.protocol.tasks import StepTask
from durable_worker.transports.base import RESENT_HEADER, Delivery, Envelope
from durable_worker.transports.memory import MemoryTransport
from durable_worker.worker import recorded
from tests.integration.worker.desk import serving

pytestmark = pytest.mark.anyio
NAMES = Names()
TASK = StepTask(run_id="r", seq=4, name="pay", step_id="r:4", group="pay", attempt=1)
REPEATED = Envelope(
    MessageType.STEP_TASK, codec.encode(TASK), "r:4:1", headers={RESENT_HEADER: "0"}
)


@pytest.fixture
async def transport() -> AsyncIterator[MemoryTransport]:
    async with MemoryTransport(names=NAMES) as opened:
        yield opened


class Answering:
    """An operator that only answers `getRunDetail`."""

    def __init__(
        self,
        transport: MemoryTransport,
        *,
        run: str,
        step: str,
        attempts: int,
        tenant: str = "default",
    ) -> None:
        self._transport = transport
        self._tenant = tenant
        self._detail = {
            "run": {"status": run},
            "timeline": [{"seq": 4, "status": step, "attempts": attempts}],
        }
        self._asked = anyio.create_memory_object_stream[Delivery](10)
        self.questions = 0

    async def run(self) -> None:
        send, receive = self._asked
        await self._transport.consume([NAMES.run_request], send.send_nowait, prefetch=10)
        with send, receive:
            async for delivery in receive:
                await delivery.ack()
                request = codec.RUN_REQUEST.decode(delivery.envelope.body)
                assert request.body == GetRunDetail(run_id="r")
                self.questions += 1
                if request.tenant == self._tenant:
                    result = RequestResult(ok=True, data=Raw(json.encode(self._detail)))
                else:
                    result = RequestResult(ok=False, error=RequestError(message="not yours"))
                reply = RunReply(request_id=request.request_id, result=result)
                await self._transport.broadcast(
                    NAMES.run_reply, Envelope(MessageType.RUN_REPLY, codec.encode(reply))
                )


def paying(runs: list[str]) -> Worker:
    worker = Worker()

    @worker.step("pay")
    async def pay() -> None:
        runs.append("paid")

    @worker.step("other")
    async def other() -> None: ...

    return worker


@pytest.mark.parametrize(
    ("run", "step", "attempts"),
    [("running", "completed", 1), ("running", "pending", 2), ("cancelled", "pending", 1)],
)
async def test_what_the_operator_needs_no_more_is_acknowledged_and_not_run(
    transport: MemoryTransport, run: str, step: str, attempts: int
) -> None:
    runs: list[str] = []
    operator = Answering(transport, run=run, step=step, attempts=attempts)
    async with anyio.create_task_group() as group:
        group.start_soon(operator.run)
        async with serving(paying(runs), transport, NAMES) as desk:
            await transport.send(NAMES.tasks("pay"), REPEATED)
            with anyio.fail_after(5):
                while not operator.questions or transport.depth(NAMES.tasks("pay")):  # noqa: ASYNC110
                    await anyio.sleep(0.005)
            await desk.send_step("other")
            assert (await desk.result()).step_id != TASK.step_id
        group.cancel_scope.cancel()
    assert runs == []


async def test_what_is_still_open_at_a_second_look_is_run(
    transport: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded, "SECOND_LOOK_AFTER", timedelta(milliseconds=10))
    runs: list[str] = []
    operator = Answering(transport, run="running", step="pending", attempts=1)
    async with anyio.create_task_group() as group:
        group.start_soon(operator.run)
        async with serving(paying(runs), transport, NAMES) as desk:
            await transport.send(NAMES.tasks("pay"), REPEATED)
            assert (await desk.result()).step_id == TASK.step_id
        group.cancel_scope.cancel()
    assert (runs, operator.questions) == (["paid"], 2)


async def test_without_an_operator_that_answers_the_step_is_run_all_the_same(
    transport: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded, "ANSWER_WITHIN", timedelta(milliseconds=20))
    runs: list[str] = []
    async with serving(paying(runs), transport, NAMES) as desk:
        await transport.send(NAMES.tasks("pay"), REPEATED)
        assert (await desk.result()).step_id == TASK.step_id
    assert runs == ["paid"]


async def test_a_process_that_was_stopped_for_longer_than_its_patience_asks_again(
    transport: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, milliseconds in (
        ("ANSWER_WITHIN", 100),
        ("REPLY_LOST_AFTER", 80),
        ("ASK_AGAIN_AFTER", 10),
    ):
        monkeypatch.setattr(recorded, name, timedelta(milliseconds=milliseconds))
    runs: list[str] = []
    operator = Answering(transport, run="running", step="completed", attempts=1)
    async with anyio.create_task_group() as group, serving(paying(runs), transport, NAMES):
        await transport.send(NAMES.tasks("pay"), REPEATED)
        with anyio.fail_after(5):
            while not transport.depth(NAMES.run_request):  # noqa: ASYNC110
                await anyio.sleep(0.005)
            time.sleep(0.5)  # noqa: ASYNC251 - the process stands still
            group.start_soon(operator.run)
            while transport.depth(NAMES.tasks("pay")):  # noqa: ASYNC110
                await anyio.sleep(0.005)
        group.cancel_scope.cancel()
    assert runs == []


@pytest.mark.parametrize("tenant", ["acme", "default"])
async def test_a_run_of_the_tenant_whose_partition_this_is_is_asked_about_in_its_name(
    transport: MemoryTransport, tenant: str
) -> None:
    runs: list[str] = []
    operator = Answering(transport, run="running", step="completed", attempts=1, tenant=tenant)
    task = msgspec.structs.replace(TASK, group="pay@acme")
    repeated = msgspec.structs.replace(REPEATED, body=codec.encode(task))
    other = msgspec.structs.replace(task, seq=5, step_id="r:5", name="other", group="other@acme")
    fresh = Envelope(MessageType.STEP_TASK, codec.encode(other), "r:5:1")
    async with anyio.create_task_group() as group:
        group.start_soon(operator.run)
        async with serving(paying(runs), transport, NAMES, partition="acme") as desk:
            await transport.send(NAMES.tasks("pay@acme"), repeated)
            with anyio.fail_after(5):
                while not operator.questions or transport.depth(NAMES.tasks("pay@acme")):  # noqa: ASYNC110
                    await anyio.sleep(0.005)
            await transport.send(NAMES.tasks("other@acme"), fresh)
            assert (await desk.result()).step_id == "r:5"
        group.cancel_scope.cancel()
    assert runs == []
