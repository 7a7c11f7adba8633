"""What the operator makes of messages: requests, rubbish, what is too large."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from durable_worker.protocol.codec import RUN_REPLY, MessageType, encode
from durable_worker.protocol.commands import RetryOptions, WaitSignal, WorkflowDecision
from durable_worker.protocol.names import Names
from durable_worker.protocol.payload import plain_json
from durable_worker.protocol.runs import (
    AnyRequest,
    CancelOptions,
    CancelRequest,
    GetRunDetail,
    ListRuns,
    Redispatch,
    RequestResult,
    RetryWithInput,
    RunFacets,
    RunQuery,
    RunReply,
    RunRequest,
    RunStatus,
    SignalRequest,
    StartRun,
    WaitingFor,
    WorkerHealth,
)
from durable_worker.protocol.tasks import WorkflowTask
from durable_worker.stores.base import Store
from durable_worker.transports.base import ERROR_HEADER, Envelope
from durable_worker.transports.memory import MemoryTransport
from tests.integration.operator.scripted import (
    ScriptedWorker,
    announced_until_sent,
    answer,
    call,
    complete,
    json,
    operating,
    outputs,
    proceed,
)
from tests.integration.operator.waiting import eventually

pytestmark = pytest.mark.anyio


STEP_ZERO = b'{"runId":"r","seq":0,"stepId":"r:0"}'


class Asker:
    """Sends requests and keeps the replies."""

    def __init__(self, transport: MemoryTransport, names: Names) -> None:
        self._transport = transport
        self._names = names
        self._replies: dict[str, asyncio.Future[RequestResult]] = {}
        self.replies: list[RunReply] = []

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Asker"]:
        await self._transport.declare([self._names.run_request, self._names.start_run])
        subscription = await self._transport.listen(self._names.run_reply, self._on_reply)
        yield self
        await subscription.stop()

    def _on_reply(self, envelope: Envelope) -> None:
        reply = RUN_REPLY.decode(envelope.body)
        self.replies.append(reply)
        waiting = self._replies.get(reply.request_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(reply.result)

    async def ask(
        self, body: AnyRequest, *, tenant: str = "default", request_id: str | None = None
    ) -> RequestResult:
        key = request_id or f"q{len(self._replies)}"
        self._replies[key] = asyncio.get_running_loop().create_future()
        request = RunRequest(request_id=key, tenant=tenant, body=body)
        await self._transport.send(
            self._names.run_request,
            Envelope(MessageType.RUN_REQUEST, encode(request), message_id=key),
        )
        async with asyncio.timeout(10):
            return await self._replies[key]

    async def data(self, body: AnyRequest, **options: Any) -> Any:
        result = await self.ask(body, **options)
        assert result.ok, result.error
        return plain_json(result.data)

    async def start(self, message: StartRun) -> None:
        await self._transport.send(
            self._names.start_run, Envelope(MessageType.START_RUN, encode(message))
        )


def waiting_body(task: WorkflowTask) -> WorkflowDecision:
    if task.history:
        return complete(task, outputs(task)[0])
    return proceed(task, WaitSignal(seq=0, signal="go"))


async def test_requests_are_answered_within_the_tenant(
    store: Store, transport: MemoryTransport, names: Names
) -> None:
    worker = ScriptedWorker(transport, names, {"w": waiting_body})
    asker = Asker(transport, names)
    async with operating(store, transport, names), worker.serving(), asker.listening():
        started = StartRun(
            tenant="", workflow="w", run_id="a", tags=["t"], search_attributes={"k": 1}
        )
        await asker.start(started)
        await asker.start(StartRun(tenant="acme", workflow="w", run_id="b"))

        async def are_waiting() -> bool:
            runs = await store.list_runs(RunQuery(status=RunStatus.SUSPENDED))
            return len(runs) == 2

        await eventually(are_waiting)
        detail = await asker.data(GetRunDetail(run_id="a"))
        assert detail["run"]["searchAttributes"] == {"k": 1}
        assert detail["timeline"][0]["kind"] == "signal"
        refused = await asker.ask(GetRunDetail(run_id="b"))
        assert refused.error is not None
        assert refused.error.code == "run-not-found"
        query = RunQuery(namespace="acme")
        assert [run["id"] for run in await asker.data(ListRuns(query=query))] == ["a"]
        assert [run["id"] for run in await asker.data(ListRuns(query=query), tenant="acme")] == [
            "b"
        ]
        facets = await asker.data(RunFacets(query=RunQuery()))
        assert facets["workflows"] == {"w": 1}
        (health,) = await asker.data(WorkerHealth())
        assert health["groups"] == ["w"]
        assert await asker.data(WaitingFor(run_ids=["a"])) == [
            {
                "runId": "a",
                "waitingFor": [{"seq": 0, "kind": "signal", "name": "go", "wakeAt": None}],
            }
        ]
        assert not (await asker.ask(CancelRequest(run_id="b"))).ok
        at_once = CancelOptions(compensate=False)
        await asker.data(CancelRequest(run_id="b", opts=at_once), tenant="acme")
        detail = await asker.data(GetRunDetail(run_id="b"), tenant="acme")
        assert detail["run"]["status"] == "cancelled"


async def test_a_repeated_signal_request_is_delivered_once(
    store: Store, transport: MemoryTransport, names: Names
) -> None:
    worker = ScriptedWorker(transport, names, {"w": waiting_body})
    asker = Asker(transport, names)
    async with operating(store, transport, names) as op, worker.serving(), asker.listening():
        first = await op.start("w", json(None))
        for _ in range(2):
            await asker.data(SignalRequest(signal="go", payload=json(1)), request_id="same")
        assert plain_json((await op.wait(first)).output) == 1
        second = await op.start("w", json(None))
        await asker.data(SignalRequest(signal="go", payload=json(2)), request_id="other")
        assert plain_json((await op.wait(second)).output) == 2


async def test_what_is_not_supported_is_refused_with_a_sentence(
    store: Store, transport: MemoryTransport, names: Names
) -> None:
    asker = Asker(transport, names)
    async with operating(store, transport, names), asker.listening():
        result = await asker.ask(RetryWithInput(run_id="a", input=json(1)))
    assert result.error is not None
    assert result.error.code == "unsupported"
    assert "'retryWithInput'" in result.error.message


async def test_redispatch_sends_what_is_out_once_more(
    store: Store, transport: MemoryTransport, names: Names
) -> None:
    await transport.declare([names.tasks("w"), names.tasks("echo")])
    worker = ScriptedWorker(transport, names, {"w": lambda task: proceed(task, call(0, "echo"))})
    asker = Asker(transport, names)
    async with operating(store, transport, names) as op, worker.serving(), asker.listening():
        run_id = await op.start("w", json(None))
        await eventually(lambda: transport.depth(names.tasks("echo")) == 1)
        for _ in range(2):
            await asker.data(Redispatch(run_id=run_id), request_id="same")
        await eventually(lambda: transport.depth(names.tasks("echo")) == 2)


@pytest.mark.parametrize(
    ("queue", "envelope"),
    [
        ("results", Envelope(MessageType.STEP_RESULT, STEP_ZERO, "r:0:1")),
        ("results", Envelope(MessageType.STEP_RESULT, STEP_ZERO, "r:0:1", protocol=2)),
        ("dead", Envelope(MessageType.STEP_TASK, STEP_ZERO, "r:0:1")),
    ],
)
async def test_a_message_that_nobody_understands_fails_the_step_that_it_names(
    store: Store,
    transport: MemoryTransport,
    names: Names,
    queue: str,
    envelope: Envelope,
) -> None:
    def workflow(task: WorkflowTask) -> WorkflowDecision:
        if task.history:
            assert task.history[0].error is not None
            return complete(task, [task.history[0].error.code, task.history[0].error.retryable])
        return proceed(task, call(0, "echo", retry=RetryOptions(attempts=9)))

    await transport.declare([names.tasks("echo")])
    worker = ScriptedWorker(transport, names, {"w": workflow})
    async with operating(store, transport, names) as operator, worker.serving():
        await operator.start("w", json(None), run_id="r")
        await eventually(lambda: transport.depth(names.tasks("echo")) == 1)
        await transport.send(getattr(names, queue), envelope)
        assert plain_json((await operator.wait("r")).output) == ["poison", False]
        (letter,) = await store.dead_letters(limit=9)
        assert (letter.type, letter.run_id, letter.seq) == (envelope.type, "r", 0)
        assert await kept_bodies(store) == [STEP_ZERO]
        await eventually(lambda: transport.depth(names.dead) == 0)
        await eventually(lambda: transport.depth(names.results) == 0)


async def test_an_unreadable_decision_makes_its_run_a_dead_letter(
    store: Store, transport: MemoryTransport, names: Names
) -> None:
    await transport.declare([names.tasks("w")])
    async with operating(store, transport, names) as operator:
        announcing = ScriptedWorker(transport, names, {"w": waiting_body})
        await operator.start("w", json(None), run_id="r")
        await announced_until_sent(announcing, transport)
        body = b'{"taskId":"r#1","runId":"r","status":"continue","commands":[{"kind":"jump"}]}'
        await transport.send(names.decisions, Envelope(MessageType.WORKFLOW_DECISION, body))
        run = await operator.wait("r")
    assert run.status is RunStatus.DEAD
    assert run.error is not None
    assert run.error.code == "poison"
    assert "kind" in run.error.message


async def kept_bodies(store: Store) -> list[bytes]:
    found = [await store.dead_letter(each.id) for each in await store.dead_letters(limit=9)]
    return [each.body for each in found if each is not None]


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b'{"runId":5,"tenant":"","workflow":""}'])
@pytest.mark.parametrize(
    "queue", ["results", "decisions", "step_events", "start_run", "run_request", "dead"]
)
async def test_rubbish_on_any_queue_is_kept_as_a_dead_letter_and_harms_nothing(
    transport: MemoryTransport, store: Store, names: Names, queue: str, body: bytes
) -> None:
    worker = ScriptedWorker(transport, names, {"w": lambda task: complete(task, 1)})
    async with operating(store, transport, names) as operator, worker.serving():
        await transport.declare([getattr(names, queue)])
        await transport.send(getattr(names, queue), Envelope(None, body))

        async def is_kept() -> bool:
            return await kept_bodies(store) == [body]

        await eventually(is_kept)
        run = await operator.wait(await operator.start("w", json(None)))
        assert run.status is RunStatus.COMPLETED


async def test_a_dead_letter_keeps_the_reason_from_its_header(
    store: Store, transport: MemoryTransport, names: Names
) -> None:
    async with operating(store, transport, names):
        await transport.declare([names.dead])
        await transport.send(names.dead, Envelope("x", b"1", headers={ERROR_HEADER: "because"}))

        async def is_kept() -> bool:
            return [each.reason for each in await store.dead_letters(limit=9)] == ["because"]

        await eventually(is_kept)


async def test_a_task_that_is_too_large_fails_the_step_and_not_the_operator(
    store: Store, names: Names
) -> None:
    def body(task: WorkflowTask) -> WorkflowDecision:
        if task.history:
            assert task.history[0].error is not None
            return complete(task, task.history[0].error.code)
        return proceed(task, call(0, "echo", "x" * 10_000))

    async with MemoryTransport(names=names, max_message_bytes=20_000) as transport:
        worker = ScriptedWorker(transport, names, {"w": body}, {"echo": answer})
        small = MemoryTransport(names=names, max_message_bytes=5_000)
        small._queues = transport._queues
        small._listeners = transport._listeners
        async with small, operating(store, small, names) as operator, worker.serving():
            run = await operator.wait(await operator.start("w", json(None)))
    assert plain_json(run.output) == "payload-too-large"
