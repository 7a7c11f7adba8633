"""What a client makes of slow and of odd answers, and what is none of its tenant's business."""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import anyio
import pytest
from msgspec import Raw

from durable_worker.client import Client, broker_client, store_client
from durable_worker.errors import NoOperatorError, RequestRefusedError, RunNotFoundError
from durable_worker.operator.service import OperatorService
from durable_worker.protocol.codec import RUN_REQUEST, MessageType, encode
from durable_worker.protocol.names import Names
from durable_worker.protocol.runs import (
    RequestError,
    RequestResult,
    RunReply,
    RunRequest,
    RunStatus,
)
from durable_worker.stores.inputs import AnyInput, CancelRequested, SignalSent, StartRun
from durable_worker.stores.memory import MemoryStore
from durable_worker.transports.base import Delivery, Envelope
from durable_worker.transports.memory import MemoryTransport
from tests.conformance.transports.inbox import Inbox

pytestmark = pytest.mark.anyio

PATIENCE = timedelta(seconds=20)
NAMES = Names()


class Scripted:
    """An operator that answers each request with what a function makes of it."""

    def __init__(
        self, transport: MemoryTransport, answer: Callable[[RunRequest], RequestResult]
    ) -> None:
        self._transport = transport
        self._answer = answer
        self.asked = 0

    async def serve(self) -> None:
        inbox = Inbox[Delivery]()
        await self._transport.consume([NAMES.run_request], inbox, prefetch=10)
        while True:
            delivery = await inbox.next()
            self.asked += 1
            request = RUN_REQUEST.decode(delivery.envelope.body)
            reply = RunReply(request_id=request.request_id, result=self._answer(request))
            envelope = Envelope(MessageType.RUN_REPLY, encode(reply))
            await self._transport.broadcast(NAMES.run_reply, envelope)
            await delivery.ack()


def refused(code: str, message: str) -> RequestResult:
    return RequestResult(ok=False, error=RequestError(message=message, code=code))


def unknown(_request: RunRequest) -> RequestResult:
    return refused("run-not-found", "there is no such run")


def too_large(_request: RunRequest) -> RequestResult:
    return refused("payload-too-large", "it has 20 MB")


@pytest.fixture
async def transport() -> AsyncIterator[MemoryTransport]:
    async with MemoryTransport(names=NAMES) as transport:
        yield transport


@pytest.fixture
async def client(transport: MemoryTransport) -> AsyncIterator[Client]:
    async with broker_client(transport, names=NAMES, timeout=timedelta(seconds=1)) as client:
        yield client


async def test_a_wait_for_a_run_whose_detail_fits_no_message_says_so(
    transport: MemoryTransport, client: Client
) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(Scripted(transport, too_large).serve)
        handle = await client.start("big", run_id="r1")
        assert await client.is_taken_up()
        with pytest.raises(RequestRefusedError, match=r"run 'r1' .*: it has 20 MB") as caught:
            await handle.wait(timeout=PATIENCE)
        assert caught.value.code == "payload-too-large"
        group.cancel_scope.cancel()


async def test_a_run_that_somebody_else_would_have_started_is_asked_for_once(
    transport: MemoryTransport, client: Client
) -> None:
    operator = Scripted(transport, unknown)
    async with anyio.create_task_group() as group:
        group.start_soon(operator.serve)
        for ask in (client.detail, client.cancel):
            with pytest.raises(RunNotFoundError):
                await ask("r1")
        assert operator.asked == 2
        group.cancel_scope.cancel()


async def test_a_run_whose_start_never_arrives_is_given_up_after_the_timeout(
    transport: MemoryTransport, client: Client
) -> None:
    operator = Scripted(transport, unknown)
    async with anyio.create_task_group() as group:
        group.start_soon(operator.serve)
        handle = await client.start("lost", run_id="r1")
        with anyio.fail_after(PATIENCE.total_seconds()), pytest.raises(RunNotFoundError):
            await handle.detail()
        assert operator.asked > 2
        group.cancel_scope.cancel()


async def test_a_cancellation_that_overtakes_the_start_is_asked_for_again(
    transport: MemoryTransport, client: Client
) -> None:
    done = RequestResult(ok=True, data=Raw(b'{"runId":"r1"}'))
    answers = iter([refused("run-not-found", "not yet")] * 2 + [done])
    operator = Scripted(transport, lambda _request: next(answers))
    async with anyio.create_task_group() as group:
        group.start_soon(operator.serve)
        handle = await client.start("slow to arrive", run_id="r1")
        await handle.cancel()
        assert operator.asked == 3
        group.cancel_scope.cancel()


async def test_a_run_can_be_asked_for_and_cancelled_as_soon_as_it_is_started() -> None:
    store, transport = MemoryStore(), MemoryTransport(names=NAMES)
    operator = OperatorService(store, transport, names=NAMES)
    async with store, transport, anyio.create_task_group() as group:
        group.start_soon(operator.serve)
        async with broker_client(transport, names=NAMES) as client:
            for number in range(20):
                seen = await client.start("nobody serves it", run_id=f"seen{number}")
                assert (await seen.detail()).run.id == seen.run_id
                ended = await client.start("nobody serves it", run_id=f"ended{number}")
                await ended.cancel()
                assert (await ended.wait(timeout=PATIENCE)).status is RunStatus.CANCELLED
        operator.request_stop()


async def inputs_of(store: MemoryStore) -> list[AnyInput | None]:
    return [row.input for row in await store.inbox(after=0, limit=100)]


async def test_a_start_that_waits_is_known_to_its_tenant_only() -> None:
    store = MemoryStore()
    async with store_client(store, tenant="a") as owner, store_client(store, tenant="b") as other:
        await owner.start("pay", run_id="r1")
        for ask in (other.detail, other.cancel):
            with pytest.raises(RunNotFoundError):
                await ask("r1")
        with pytest.raises(NoOperatorError):
            await owner.detail("r1")
        await owner.cancel("r1")
        start = StartRun(run_id="r1", workflow="pay", namespace="a")
        assert await inputs_of(store) == [start, CancelRequested(run_id="r1")]


async def test_starting_with_the_id_of_another_tenant_gives_no_right_to_cancel() -> None:
    store = MemoryStore()
    async with store_client(store, tenant="a") as owner, store_client(store, tenant="b") as other:
        await owner.start("pay", run_id="r1")
        await other.start("steal", run_id="r1")
        with pytest.raises(RunNotFoundError):
            await other.cancel("r1")
        assert CancelRequested(run_id="r1") not in await inputs_of(store)


async def test_two_tenants_can_send_signals_with_one_id() -> None:
    store = MemoryStore()
    async with store_client(store, tenant="a") as one, store_client(store) as two:
        await one.signal("paid", signal_id="s1")
        await two.signal("paid", signal_id="s1")
        sent = [each for each in await inputs_of(store) if isinstance(each, SignalSent)]
    assert [(each.namespace, each.signal_id) for each in sent] == [
        ("a", "a/s1"),
        ("default", "default/s1"),
    ]
