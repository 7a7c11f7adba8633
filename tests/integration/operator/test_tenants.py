"""Two tenants of one operator that believes tokens only; each kind of request is held to it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from msgspec import UNSET, UnsetType

from durable_worker.client import Client, broker_client
from durable_worker.errors import RequestRefusedError, RunExistsError, RunNotFoundError
from durable_worker.operator.options import OperatorOptions
from durable_worker.operator.service import OperatorService
from durable_worker.protocol.base import TOKEN_HEADER
from durable_worker.protocol.codec import RUN_REPLY, MessageType, encode
from durable_worker.protocol.commands import WaitSignal, WorkflowDecision
from durable_worker.protocol.keys import Keyring
from durable_worker.protocol.names import Names
from durable_worker.protocol.runs import (
    AnyRequest,
    CancelRequest,
    ContinueRun,
    GetDeadLetter,
    GetRunDetail,
    ListDeadLetters,
    ListRuns,
    PageRuns,
    Redispatch,
    RedriveDeadLetter,
    RequestResult,
    RetryRun,
    RetryWithInput,
    RunFacets,
    RunQuery,
    RunRequest,
    RunStatus,
    SignalRequest,
    StartRequest,
    StartRun,
    WaitingFor,
    WorkerHealth,
)
from durable_worker.protocol.tasks import WorkflowTask
from durable_worker.protocol.tokens import ANY_TENANT, READS, TenantTokens
from durable_worker.stores.memory import MemoryStore
from durable_worker.transports.base import (
    DEATH_HEADER,
    DELIVERY_LIMIT_REASON,
    Envelope,
    Transport,
)
from tests.integration.operator.conftest import NewTransport, transport_of
from tests.integration.operator.scripted import ScriptedWorker, complete, json, operating, proceed
from tests.integration.operator.waiting import eventually

pytestmark = pytest.mark.anyio

RING = Keyring({"k1": bytes(range(32))})
TOKENS = TenantTokens(RING)
LATER = datetime.now(UTC) + timedelta(hours=1)
ACME, UMBRELLA = (TOKENS.issue(each, expires=LATER) for each in ("acme", "umbrella"))
READER = TOKENS.issue("acme", expires=LATER, allow=READS)
WORKER = TOKENS.issue(ANY_TENANT, expires=LATER)
EXPIRED = TOKENS.issue("acme", expires=datetime(2020, 1, 1, tzinfo=UTC))
FOREIGN = TenantTokens(Keyring({"k1": bytes(32)})).issue("acme", expires=LATER)


@pytest.fixture
def names(prefix: str) -> Names:
    return Names(prefix=prefix)


@dataclass
class House:
    """An operator with the run `r` of `acme`, which waits for the signal `go`."""

    names: Names
    transport: Transport
    operator: OperatorService
    store: MemoryStore
    worker: ScriptedWorker

    async def ask(
        self, body: AnyRequest, token: str | None, *, tenant: str = "acme"
    ) -> RequestResult:
        """The reply to a request that claims a tenant, wherever it is sent."""
        request_id = uuid4().hex
        replies: asyncio.Queue[RequestResult] = asyncio.Queue()

        def hear(envelope: Envelope) -> None:
            reply = RUN_REPLY.decode(envelope.body)
            if reply.request_id == request_id:
                replies.put_nowait(reply.result)

        listening = [
            await self.transport.listen(exchange, hear)
            for exchange in (self.names.run_reply, self.names.tenant_replies)
        ]
        request = RunRequest(request_id=request_id, tenant=tenant, body=body)
        headers = {} if token is None else {TOKEN_HEADER: token}
        await self.transport.send(
            self.names.run_request,
            Envelope(MessageType.RUN_REQUEST, encode(request), request_id, headers=headers),
        )
        async with asyncio.timeout(10):
            result = await replies.get()
        for each in listening:
            await each.stop()
        return result

    async def start(self, run_id: str, token: str | None, *, tenant: str = "acme") -> None:
        message = StartRun(tenant=tenant, workflow="waiting", run_id=run_id, input=UNSET)
        headers = {} if token is None else {TOKEN_HEADER: token}
        await self.transport.send(
            self.names.start_run,
            Envelope(MessageType.START_RUN, encode(message), run_id, headers=headers),
        )

    async def status(self) -> RunStatus:
        return (await self.operator.detail("r")).run.status


def waiting(task: WorkflowTask) -> WorkflowDecision:
    if task.history:
        return complete(task, 1)
    return proceed(task, WaitSignal(seq=0, signal="go"))


@pytest.fixture
async def house(new_transport: NewTransport, names: Names) -> AsyncIterator[House]:
    options = OperatorOptions(tenant_keys=RING)
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        transport, mine = await enter(new_transport()), await enter(new_transport())
        store = await enter(MemoryStore())
        worker = ScriptedWorker(mine, names, {"waiting": waiting})
        operator = await enter(operating(store, transport, names, options=options))
        await enter(worker.serving())
        house = House(names, mine, operator, store, worker)
        await mine.declare([names.start_run, names.run_request])
        await house.start("r", ACME)

        async def waits() -> bool:
            state = await store.load("r")
            return state is not None and bool(state.pending)

        await eventually(waits)
        yield house


IN_MEMORY = pytest.mark.parametrize("new_transport", ["memory"], indirect=True)
"""Of so many cases; a broker makes no difference to them."""

QUERY = RunQuery(namespace="acme")
KINDS: list[AnyRequest] = [
    GetRunDetail(run_id="r"),
    ListRuns(query=QUERY),
    RunFacets(query=QUERY),
    WorkerHealth(),
    CancelRequest(run_id="r"),
    RetryRun(run_id="r"),
    ContinueRun(run_id="r"),
    RetryWithInput(run_id="r", input=json(1)),
    Redispatch(run_id="r"),
    WaitingFor(run_ids=["r"]),
    SignalRequest(signal="go", payload=json("theirs")),
    ListDeadLetters(),
    GetDeadLetter(id="a"),
    RedriveDeadLetter(id="a"),
    StartRequest(workflow="waiting", run_id="r", reuse="terminate"),
    PageRuns(query=QUERY),
]


def kind(body: AnyRequest) -> str:
    return str(type(body).__struct_config__.tag)


def data(result: RequestResult) -> Any:
    assert result.ok, result.error
    return None if isinstance(result.data, UnsetType) else msgspec.json.decode(result.data)


def test_every_kind_of_request_is_held_to_it() -> None:
    assert {type(each) for each in KINDS} == set(AnyRequest.__args__)


@IN_MEMORY
@pytest.mark.parametrize("body", KINDS, ids=kind)
async def test_what_another_tenant_asks_for_with_its_own_token_shows_and_changes_nothing(
    house: House, body: AnyRequest
) -> None:
    result = await house.ask(body, UMBRELLA, tenant="acme")
    match body:
        case ListRuns() | ListDeadLetters():
            assert data(result) == []
        case PageRuns():
            assert data(result) == {"runs": []}
        case StartRequest():
            assert result.error is not None
            assert result.error.code == RunExistsError.code
        case RunFacets():
            assert not any(data(result)[each] for each in ("statuses", "workflows"))
        case WorkerHealth():
            assert data(result) == [{"groups": ["waiting"], "lifecycle": "up"}]
        case SignalRequest():
            assert result.ok  # of its own namespace, where nobody waits for it
        case RetryWithInput():
            assert result.error is not None
            assert result.error.code == "unsupported"
        case _:
            assert result.error is not None
            assert result.error.code in (RunNotFoundError.code, "dead-letter-not-found")
    assert await house.status() is RunStatus.SUSPENDED
    assert len(house.worker.turns) == 1


@IN_MEMORY
@pytest.mark.parametrize(
    ("token", "told"),
    [
        (None, "there is none"),
        ("", "it is no tenant token"),
        (EXPIRED, "it has expired at 2020-01-01 00:00:00 UTC"),
        (FOREIGN, "it is not what was issued"),
    ],
    ids=["none", "empty", "expired", "foreign"],
)
@pytest.mark.parametrize("body", KINDS, ids=kind)
async def test_what_is_asked_for_without_a_good_token_is_refused(
    house: House, body: AnyRequest, token: str | None, told: str
) -> None:
    result = await house.ask(body, token)
    assert result.error is not None
    assert result.error.code == "tenant-token"
    assert told in result.error.message
    assert token is None or not token or token not in result.error.message
    assert await house.status() is RunStatus.SUSPENDED


@IN_MEMORY
@pytest.mark.parametrize("body", KINDS, ids=kind)
async def test_a_token_for_reading_reads_and_changes_nothing(
    house: House, body: AnyRequest
) -> None:
    result = await house.ask(body, READER)
    if isinstance(body, GetDeadLetter):
        assert result.error is not None
        assert result.error.code == "dead-letter-not-found"
    elif kind(body) in READS:
        assert result.ok
    else:
        assert result.error is not None
        assert result.error.code == "tenant-token"
        needed = "start" if isinstance(body, StartRequest) else kind(body)
        assert f"it does not allow {needed!r}" in result.error.message
    assert await house.status() is RunStatus.SUSPENDED
    assert len(house.worker.turns) == 1


@IN_MEMORY
@pytest.mark.parametrize("body", KINDS, ids=kind)
async def test_a_worker_s_token_tells_how_a_run_of_anybody_stands_and_nothing_else(
    house: House, body: AnyRequest
) -> None:
    result = await house.ask(body, WORKER, tenant="default")
    if isinstance(body, GetRunDetail):
        assert data(result)["run"]["id"] == "r"
    else:
        assert result.error is not None
        assert result.error.code == "tenant-token"
    assert await house.status() is RunStatus.SUSPENDED


async def test_the_owner_reads_signals_and_cancels(house: House) -> None:
    detail = data(await house.ask(GetRunDetail(run_id="r"), ACME, tenant="umbrella"))
    assert detail["run"]["namespace"] == "acme"
    listed = data(await house.ask(ListRuns(query=RunQuery(namespace="umbrella")), ACME))
    assert [each["id"] for each in listed] == ["r"]
    assert (await house.ask(SignalRequest(signal="go"), ACME)).ok
    await house.start("r2", ACME, tenant="umbrella")
    assert (await house.operator.wait("r")).status is RunStatus.COMPLETED

    async def is_there() -> bool:
        return await house.store.load("r2") is not None

    await eventually(is_there)
    assert (await house.ask(CancelRequest(run_id="r2"), ACME)).ok
    assert (await house.operator.wait("r2")).status is RunStatus.CANCELLED


async def test_a_start_without_a_token_that_allows_it_is_a_dead_letter_without_the_token(
    house: House,
) -> None:
    refused = {"none": None, "foreign": FOREIGN, "old": EXPIRED, "read": READER, "worker": WORKER}
    for run_id, token in refused.items():
        await house.start(run_id, token)

    async def are_kept() -> bool:
        return len(await house.store.dead_letters(limit=10)) == len(refused)

    await eventually(are_kept)
    for letter in await house.store.dead_letters(limit=10):
        assert "tenant token" in letter.reason
        assert TOKEN_HEADER not in letter.headers
    assert [await house.store.load(run_id) for run_id in refused] == [None] * len(refused)


async def test_a_start_whose_token_has_expired_on_the_dead_queue_is_kept_without_it(
    house: House,
) -> None:
    message = StartRun(tenant="acme", workflow="waiting", run_id="late", input=UNSET)
    headers = {TOKEN_HEADER: EXPIRED, DEATH_HEADER: DELIVERY_LIMIT_REASON}
    letter = Envelope(MessageType.START_RUN, encode(message), "late", headers=headers)
    await house.transport.declare([house.names.dead])
    await house.transport.send(house.names.dead, letter)

    async def is_kept() -> bool:
        return len(await house.store.dead_letters(limit=10)) == 1

    await eventually(is_kept)
    (kept,) = await house.store.dead_letters(limit=10)
    assert TOKEN_HEADER not in kept.headers
    assert await house.store.load("late") is None


async def test_a_start_with_the_id_of_another_tenant_s_run_gives_no_right_to_it(
    house: House,
) -> None:
    await house.start("r", UMBRELLA, tenant="umbrella")
    await house.start("theirs", UMBRELLA, tenant="acme")

    async def is_there() -> bool:
        return await house.store.load("theirs") is not None

    await eventually(is_there)
    state = await house.store.load("theirs")
    assert state is not None
    assert state.run.namespace == "umbrella"
    for body in (GetRunDetail(run_id="r"), CancelRequest(run_id="r")):
        result = await house.ask(body, UMBRELLA, tenant="umbrella")
        assert result.error is not None
        assert result.error.code == RunNotFoundError.code
    assert await house.status() is RunStatus.SUSPENDED


async def test_replies_go_to_their_tenant_alone(house: House) -> None:
    """A worker's go to all, as ever, and so does what proves no tenant."""
    everybody: list[bytes] = []
    others: list[bytes] = []
    one = await house.transport.listen(
        house.names.run_reply, lambda envelope: everybody.append(envelope.body)
    )
    two = await house.transport.listen(
        house.names.tenant_replies, lambda envelope: others.append(envelope.body), topic="umbrella"
    )
    assert (await house.ask(GetRunDetail(run_id="r"), ACME)).ok
    assert not (await house.ask(CancelRequest(run_id="r"), READER)).ok
    assert not (await house.ask(CancelRequest(run_id="r"), EXPIRED)).ok
    assert not (await house.ask(CancelRequest(run_id="r"), UMBRELLA)).ok
    assert (await house.ask(GetRunDetail(run_id="r"), WORKER)).ok
    assert not (await house.ask(GetRunDetail(run_id="r"), FOREIGN)).ok
    await eventually(lambda: (len(everybody), len(others)) == (2, 1))
    for each in (one, two):
        await each.stop()


async def test_a_client_with_a_token_starts_waits_and_controls_and_another_does_not(
    house: House, new_transport: NewTransport
) -> None:
    def client(token: str | Callable[[], str] | None) -> Client:
        way = new_transport()
        patience = timedelta(seconds=10)
        return broker_client(transport_of(way), names=house.names, token=token, timeout=patience)

    async with client(lambda: ACME) as mine, client(UMBRELLA) as theirs, client(None) as nobody:
        handle = await mine.start("waiting", run_id="mine")
        assert (await handle.detail()).run.namespace == "acme"
        for ask in (theirs.detail, theirs.cancel):
            with pytest.raises(RunNotFoundError):
                await ask("mine")
        with pytest.raises(RequestRefusedError, match="there is none") as caught:
            await nobody.detail("mine")
        assert caught.value.code == "tenant-token"
        await theirs.signal("go")
        await mine.signal("go")  # to the run that has waited for longer
        await mine.signal("go")
        run = await handle.wait(timeout=timedelta(seconds=20))
        assert run.status is RunStatus.COMPLETED


async def test_a_client_with_a_token_is_heard_by_an_operator_that_asks_for_none(
    new_transport: NewTransport, names: Names
) -> None:
    way = new_transport()
    async with (
        MemoryStore() as store,
        new_transport() as transport,
        operating(store, transport, names),
        broker_client(
            transport_of(way), names=names, token=ACME, timeout=timedelta(seconds=10)
        ) as client,
    ):
        handle = await client.start("nobody serves it", run_id="r")
        assert (await handle.detail()).run.namespace == "acme"
