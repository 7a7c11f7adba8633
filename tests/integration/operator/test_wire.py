import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import structlog
from msgspec import UNSET

from durable_worker.operator.options import OperatorOptions
from durable_worker.protocol.codec import RUN_REPLY, TENANT_EVENT, MessageType, encode
from durable_worker.protocol.commands import RetryOptions, WaitSignal, WorkflowDecision
from durable_worker.protocol.control import EventHappened, Heartbeat
from durable_worker.protocol.descriptor import Lifecycle
from durable_worker.protocol.names import Names
from durable_worker.protocol.payload import plain_json
from durable_worker.protocol.results import (
    EventLevel,
    StepEvent,
    StepPhase,
    StepResult,
    WorkflowStepEvent,
)
from durable_worker.protocol.runs import (
    AnyRequest,
    CancelRequest,
    GetRunDetail,
    ListRuns,
    Redispatch,
    RequestResult,
    RetryRun,
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
from durable_worker.protocol.tasks import StepTask, WorkflowTask
from durable_worker.stores.base import Store
from durable_worker.transports.base import ERROR_HEADER, Envelope
from durable_worker.transports.memory import MemoryTransport
from tests.integration.operator.scripted import (
    ScriptedWorker,
    answer,
    call,
    complete,
    json,
    operating,
    outputs,
    proceed,
    sequence,
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
        await asker.data(CancelRequest(run_id="b"), tenant="acme")
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
        result = await asker.ask(RetryRun(run_id="a"))
    assert result.error is not None
    assert result.error.code == "unsupported"
    assert "'retry'" in result.error.message


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
        assert (letter.type, letter.body) == (envelope.type, STEP_ZERO)
        await eventually(lambda: transport.depth(names.dead) == 0)
        await eventually(lambda: transport.depth(names.results) == 0)


async def announced_until_sent(worker: ScriptedWorker, transport: MemoryTransport) -> None:
    """Announce a worker that takes nothing, until a turn lies on its queue."""

    async def is_sent() -> bool:
        await worker.announce()
        return transport.depth(worker.names.tasks(worker.tokens[0])) == 1

    await eventually(is_sent)


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
            return [each.body for each in await store.dead_letters(limit=9)] == [body]

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


async def test_a_silent_turn_is_given_to_a_living_worker_again(
    store: Store, transport: MemoryTransport, names: Names
) -> None:
    options = OperatorOptions(silence=timedelta(milliseconds=50))
    await transport.declare([names.tasks("w")])
    async with operating(store, transport, names, options=options) as operator:
        silent = ScriptedWorker(transport, names, {"w": lambda task: complete(task, "late")})
        run_id = await operator.start("w", json(None))
        await announced_until_sent(silent, transport)
        taken: list[Any] = []
        subscription = await transport.consume([names.tasks("w")], taken.append, prefetch=1)
        await eventually(lambda: len(taken) == 1)
        await subscription.stop()
        beat = Heartbeat(run_id=run_id, seq=0, group="w")
        await transport.broadcast(names.heartbeat, Envelope(MessageType.HEARTBEAT, encode(beat)))
        async with ScriptedWorker(
            transport, names, {"w": lambda task: complete(task, [task.task_id, task.attempt])}
        ).serving():
            run = await operator.wait(run_id)
    assert plain_json(run.output) == [f"{run_id}#2", 2]


async def test_events_of_runs_and_steps_are_broadcast(
    store: Store, transport: MemoryTransport, names: Names
) -> None:
    worker = ScriptedWorker(transport, names, {"seq": sequence("echo")}, {"echo": answer})
    told: list[tuple[str, str]] = []

    def on_event(envelope: Envelope) -> None:
        message = TENANT_EVENT.decode(envelope.body)
        told.append((message.tenant, message.event.type.value))

    await transport.listen(names.tenant_events, on_event)
    async with operating(store, transport, names) as operator, worker.serving():
        await operator.wait(await operator.start("seq", json(None), namespace="acme"))
        await eventually(lambda: len(worker.controls) == 4)
    assert told == [
        ("acme", "run.started"),
        ("acme", "run.suspended"),
        ("acme", "step.completed"),
        ("acme", "run.completed"),
    ]
    assert all(isinstance(each, EventHappened) for each in worker.controls)


async def test_a_running_step_shows_what_it_reports(
    store: Store, transport: MemoryTransport, names: Names
) -> None:
    released = asyncio.Event()

    async def slow(task: StepTask) -> StepResult:
        event = StepEvent(at=1_000, level=EventLevel.INFO, message="half way")
        report = WorkflowStepEvent(
            run_id=task.run_id,
            seq=task.seq,
            name=task.name,
            phase=StepPhase.RUNNING,
            started_at=1_000,
            events=[event],
        )
        await transport.send(
            names.step_events, Envelope(MessageType.STEP_EVENT, encode(report), message_id="x")
        )
        await released.wait()
        return answer(task)

    worker = ScriptedWorker(transport, names, {"seq": sequence("slow")}, {"slow": slow})
    async with operating(store, transport, names) as operator, worker.serving():
        run_id = await operator.start("seq", json(None))

        async def is_shown() -> bool:
            entries = (await operator.detail(run_id)).timeline
            return bool(entries) and [e.message for e in entries[0].events or []] == ["half way"]

        await eventually(is_shown)
        released.set()
        await operator.wait(run_id)


async def test_missing_workers_are_named_once(
    store: Store, transport: MemoryTransport, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("durable_worker.operator.presence.MISSING_STEP_PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr("durable_worker.operator.presence.MISSING_WORKFLOW_PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr("durable_worker.operator.presence._CHECK_SECONDS", 0.01)
    worker = ScriptedWorker(
        transport,
        names,
        {
            "w": lambda task: proceed(task, call(0, "nobody.here")),
            "done": lambda task: complete(task, 1),
        },
    )
    with structlog.testing.capture_logs() as lines:
        async with operating(store, transport, names) as operator, worker.serving():
            for _ in range(3):
                await operator.start("w", json(None))
                await operator.start("unknown", json(None))

            def named() -> list[tuple[Any, Any]]:
                return [
                    (line.get("handler"), line.get("workflow"))
                    for line in lines
                    if line["log_level"] == "warning"
                ]

            missing = [("nobody.here", None), (None, "unknown")]
            await eventually(lambda: set(missing) <= set(named()))
            await operator.wait(await operator.start("done", json(None)))
    assert [named().count(each) for each in missing] == [1, 1]


async def test_a_stopped_worker_takes_no_new_runs(
    store: Store, transport: MemoryTransport, names: Names
) -> None:
    worker = ScriptedWorker(transport, names, {"w": lambda task: complete(task, 1)})
    async with operating(store, transport, names) as operator:
        async with worker.serving():
            await operator.wait(await operator.start("w", json(None)))
            await worker.beat(Lifecycle.STOPPED)
        run_id = await operator.start("w", json(None))
        assert (await operator.detail(run_id)).run.status is RunStatus.PENDING


async def test_duplicate_and_outdated_answers_change_nothing(
    store: Store, transport: MemoryTransport, names: Names
) -> None:
    worker = ScriptedWorker(transport, names, {"seq": sequence("echo", "echo")}, {"echo": answer})
    async with operating(store, transport, names) as operator, worker.serving():
        run = await operator.wait(await operator.start("seq", json(None), run_id="r"))
        detail = await operator.detail("r")
        duplicate = encode(answer(worker.tasks[0], "other"))
        for message_id in ("r:0:1", "r:0:7", None, "nonsense", "r:0:" + "9" * 40):
            await transport.send(
                names.results, Envelope(MessageType.STEP_RESULT, duplicate, message_id=message_id)
            )
        unknown = msgspec.structs.replace(answer(worker.tasks[0]), run_id="nobody", output=UNSET)
        await transport.send(names.results, Envelope(MessageType.STEP_RESULT, encode(unknown)))
        decision = encode(complete(worker.turns[0], "other"))
        await transport.send(names.decisions, Envelope(MessageType.WORKFLOW_DECISION, decision))
        await eventually(
            lambda: transport.depth(names.results) == transport.depth(names.decisions) == 0
        )
        assert await operator.detail("r") == detail
        assert run.status is RunStatus.COMPLETED
