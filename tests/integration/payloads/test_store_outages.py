"""What a worker does while the store of large payloads is away."""

from collections.abc import AsyncIterator

import anyio
import pytest
from msgspec import Raw

from durable_worker import StepContext, Worker
from durable_worker.edge.errors import BlobMissingError, BlobStoreError
from durable_worker.payloads import ClaimCheck, PayloadCodec
from durable_worker.protocol.commands import DecisionStatus
from durable_worker.protocol.names import Names
from durable_worker.protocol.results import ResultStatus
from durable_worker.transports.memory import MemoryTransport
from tests.integration.payloads.wire import raw, send_step, send_turn, worker_with
from tests.integration.worker.desk import eventually, serving

pytestmark = pytest.mark.anyio
NAMES = Names()


@pytest.fixture
async def transport() -> AsyncIterator[MemoryTransport]:
    async with MemoryTransport(names=NAMES) as opened:
        yield opened


class Outage:
    """A store that is away until it is told otherwise."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.is_away = False
        self.refused = 0

    def _answer(self) -> None:
        if self.is_away:
            self.refused += 1
            raise BlobStoreError("the store", "it is away")

    async def put(self, key: str, data: bytes) -> None:
        self._answer()
        self.blobs[key] = data

    async def get(self, key: str, *, limit: int) -> bytes:
        self._answer()
        if key not in self.blobs:
            raise BlobMissingError(key, "the store")
        return self.blobs[key]


async def test_a_turn_waits_in_its_queue_for_a_store_that_is_away(
    transport: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("durable_worker.payloads.claim_check.ATTEMPTS", 1)
    store = Outage()
    codec = PayloadCodec(ClaimCheck(store, threshold=1))
    value = await codec.seal(raw("large"), salt="run-1")
    assert isinstance(value, Raw)
    store.is_away = True
    async with serving(worker_with(codec), transport, NAMES) as desk:
        await send_turn(desk, "echoing", value)
        await eventually(lambda: store.refused)
        store.is_away = False
        decision = await desk.decision()
    assert decision.status is DecisionStatus.COMPLETED


async def test_an_output_that_cannot_be_stored_is_a_failure_that_a_retry_may_mend(
    transport: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("durable_worker.payloads.claim_check.ATTEMPTS", 1)
    store = Outage()
    store.is_away = True
    codec = PayloadCodec(ClaimCheck(store, threshold=10))
    async with serving(worker_with(codec), transport, NAMES) as desk:
        await send_step(desk, "telling", raw(1))
        result = await desk.result()
    assert result.error is not None
    assert (result.error.code, result.error.retryable) == ("blob-store", None)


async def test_a_running_turn_or_step_is_not_held_up_by_a_live_event_that_cannot_be_sealed(
    transport: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("durable_worker.payloads.claim_check.ATTEMPTS", 1)
    store = Outage()
    worker = Worker(codec=PayloadCodec(ClaimCheck(store, threshold=100)))

    @worker.step("loud")
    async def loud(ctx: StepContext) -> str:
        store.is_away = True
        ctx.info("x" * 200)
        with anyio.fail_after(5):
            while not store.refused:  # noqa: ASYNC110
                await anyio.sleep(0.005)
        store.is_away = False
        ctx.info("short")
        return "done"

    async with serving(worker, transport, NAMES) as desk:
        await send_step(desk, "loud", Raw(b"null"))
        result = await desk.result()
        await eventually(lambda: [each for each in desk.control if b"short" in each.body])
    assert result.status is ResultStatus.COMPLETED
