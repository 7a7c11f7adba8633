"""Workers that fall silent, go or are missing, and what the operator tells of its runs."""

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import structlog
from msgspec import UNSET

from durable_worker.operator.options import OperatorOptions
from durable_worker.protocol.codec import TENANT_EVENT, MessageType, encode
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
    RunStatus,
)
from durable_worker.protocol.tasks import StepTask
from durable_worker.stores.base import Store
from durable_worker.transports.base import Envelope
from durable_worker.transports.memory import MemoryTransport
from tests.integration.operator.scripted import (
    ScriptedWorker,
    announced_until_sent,
    answer,
    call,
    complete,
    json,
    operating,
    proceed,
    sequence,
)
from tests.integration.operator.waiting import eventually

pytestmark = pytest.mark.anyio


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
