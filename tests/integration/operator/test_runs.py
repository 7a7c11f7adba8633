import asyncio
from datetime import timedelta

import pytest

from durable_worker.errors import NoOperatorError, RunNotFoundError
from durable_worker.operator.options import OperatorOptions
from durable_worker.protocol.commands import (
    RecordStep,
    RetryOptions,
    StartChild,
    StartTimer,
    WorkflowDecision,
)
from durable_worker.protocol.commands import WaitSignal as Wait
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.names import Names
from durable_worker.protocol.payload import plain_json
from durable_worker.protocol.results import StepResult
from durable_worker.protocol.runs import RunQuery, RunStatus
from durable_worker.protocol.tasks import StepTask, WorkflowTask
from durable_worker.stores.base import Store
from durable_worker.stores.inputs import CancelRequested, SignalSent, StartRun
from durable_worker.stores.records import PendingWork
from durable_worker.transports.memory import MemoryTransport
from tests.integration.operator.scripted import (
    ScriptedWorker,
    Turn,
    answer,
    call,
    complete,
    fail,
    json,
    operating,
    outputs,
    proceed,
    refuse,
    sequence,
)
from tests.integration.operator.waiting import eventually

pytestmark = pytest.mark.anyio


def echo(task: StepTask) -> StepResult:
    return answer(task, plain_json(task.input))


async def test_a_run_goes_through_its_steps_to_its_output(
    store: Store, transport: MemoryTransport, names: Names
) -> None:
    worker = ScriptedWorker(
        transport, names, {"seq": sequence("echo", "echo")}, {"echo": echo}, {"seq": ["1", "10"]}
    )
    async with operating(store, transport, names) as operator, worker.serving():
        run_id = await operator.start("seq", json({"n": 1}), run_id="r", tags=["t"])
        run = await operator.wait(run_id)
        assert (run.status, run.workflow_version) == (RunStatus.COMPLETED, "10")
        assert plain_json(run.output) == [0, 1]
        detail = await operator.detail("r")
        assert [(each.seq, each.status, each.attempts) for each in detail.timeline] == [
            (0, "completed", 1),
            (1, "completed", 1),
        ]
        assert [each.id for each in await operator.list(RunQuery(tag="t"))] == ["r"]
        first = worker.turns[0]
        assert first.capabilities == [
            "call-retry",
            "call-timeout",
            "cancel-steps",
            "cancel-turns",
            "continue-as-new",
            "durable-timers",
            "history-deltas",
            "park",
            "search-attributes",
            "ordered-history",
        ]
        assert (first.task_id, first.group, first.attempt) == ("r#1", "seq", 1)
    assert await store.outbox() == []
    assert await store.pending_work() == PendingWork()


async def test_a_hundred_runs_at_once_all_complete(
    store: Store, transport: MemoryTransport, names: Names
) -> None:
    worker = ScriptedWorker(transport, names, {"seq": sequence(*["echo"] * 5)}, {"echo": echo})
    async with operating(store, transport, names) as operator, worker.serving():
        ids = await asyncio.gather(*(operator.start("seq", json(None)) for _ in range(100)))
        runs = await asyncio.gather(*(operator.wait(run_id) for run_id in ids))
    assert {run.status for run in runs} == {RunStatus.COMPLETED}
    assert len(worker.tasks) == 500
    assert await store.outbox() == []


async def test_a_second_start_with_one_id_changes_nothing(
    store: Store, transport: MemoryTransport, names: Names
) -> None:
    worker = ScriptedWorker(transport, names, {"seq": sequence("echo")}, {"echo": echo})
    async with operating(store, transport, names) as operator, worker.serving():
        await asyncio.gather(*(operator.start("seq", json(n), run_id="r") for n in range(3)))
        await operator.wait("r")
        await operator.start("seq", json(3), run_id="r")
        assert len(worker.tasks) == 1


async def test_a_failed_step_is_tried_again_as_its_policy_says(
    store: Store, transport: MemoryTransport, names: Names
) -> None:
    def flaky(task: StepTask) -> StepResult:
        return refuse(task, f"no {task.attempt}") if task.attempt < 3 else answer(task, "yes")

    def body(task: WorkflowTask) -> WorkflowDecision:
        if outputs(task):
            return complete(task, outputs(task)[0])
        return proceed(task, call(0, "flaky", retry=RetryOptions(attempts=5, initial_ms=5)))

    worker = ScriptedWorker(transport, names, {"w": body}, {"flaky": flaky})
    async with operating(store, transport, names) as operator, worker.serving():
        run = await operator.wait(await operator.start("w", json(None)))
        assert plain_json(run.output) == "yes"
        (entry,) = (await operator.detail(run.id)).timeline
    assert [task.attempt for task in worker.tasks] == [1, 2, 3]
    assert (entry.attempts, entry.error) == (3, None)
    assert len(worker.turns) == 2


async def test_a_step_that_exhausts_its_attempts_fails_for_the_workflow_to_see(
    store: Store, transport: MemoryTransport, names: Names
) -> None:
    def body(task: WorkflowTask) -> WorkflowDecision:
        if not task.history:
            return proceed(task, call(0, "bad", retry=RetryOptions(attempts=2, initial_ms=1)))
        error = task.history[0].error
        assert error is not None
        return fail(task, f"seen: {error.message}")

    worker = ScriptedWorker(transport, names, {"w": body}, {"bad": lambda task: refuse(task, "no")})
    async with operating(store, transport, names) as operator, worker.serving():
        run = await operator.wait(await operator.start("w", json(None)))
    assert (run.status, run.error) == (RunStatus.FAILED, Failure(message="seen: no"))


async def test_timers_fire_close_to_their_time(
    store: Store, transport: MemoryTransport, names: Names
) -> None:
    def body(task: WorkflowTask) -> WorkflowDecision:
        if task.history:
            return complete(task, task.history[0].name)
        return proceed(task, StartTimer(seq=0, ms=100))

    worker = ScriptedWorker(transport, names, {"w": body})
    async with operating(store, transport, names) as operator, worker.serving():
        loop = asyncio.get_running_loop()
        started = loop.time()
        run = await operator.wait(await operator.start("w", json(None)))
        assert plain_json(run.output) == "sleep:0"
        assert 0.1 <= loop.time() - started < 1


async def test_an_earlier_timer_that_is_armed_later_fires_first(
    store: Store, transport: MemoryTransport, names: Names
) -> None:
    def body(task: WorkflowTask) -> WorkflowDecision:
        if task.history:
            return complete(task, None)
        return proceed(task, StartTimer(seq=0, ms=int(str(plain_json(task.input)))))

    worker = ScriptedWorker(transport, names, {"w": body})
    async with operating(store, transport, names) as operator, worker.serving():
        late = await operator.start("w", json(60_000))
        await eventually(lambda: len(worker.turns) == 1)
        early = await operator.start("w", json(10))
        await operator.wait(early)
        assert (await operator.detail(late)).run.status in (RunStatus.RUNNING, RunStatus.SUSPENDED)


def waits_for(name: str) -> Turn:
    def body(task: WorkflowTask) -> WorkflowDecision:
        if task.history:
            return complete(task, outputs(task)[0])
        return proceed(task, Wait(seq=0, signal=name))

    return body


async def test_a_signal_wakes_the_oldest_wait_and_an_early_one_is_kept(
    store: Store, transport: MemoryTransport, names: Names
) -> None:
    worker = ScriptedWorker(transport, names, {"w": waits_for("go")})
    async with operating(store, transport, names) as operator, worker.serving():
        first = await operator.start("w", json(None), run_id="a")
        await eventually(lambda: len(worker.turns) == 1)
        second = await operator.start("w", json(None), run_id="b")
        await eventually(lambda: len(worker.turns) == 2)
        for value in (1, 2, 3):
            await operator.signal("go", json(value), signal_id=f"s{value}")
            await operator.signal("go", json("again"), signal_id=f"s{value}")
        assert plain_json((await operator.wait(first)).output) == 1
        assert plain_json((await operator.wait(second)).output) == 2
        third = await operator.wait(await operator.start("w", json(None)))
        assert plain_json(third.output) == 3
        await operator.signal("go", json(4), namespace="elsewhere")
        fourth = await operator.start("w", json(None))
        await eventually(lambda: len(worker.turns) == 7)
        assert (await operator.detail(fourth)).run.status is not RunStatus.COMPLETED


async def test_a_child_answers_its_parent(
    store: Store, transport: MemoryTransport, names: Names
) -> None:
    def parent(task: WorkflowTask) -> WorkflowDecision:
        if len(task.history) == 2:
            error = task.history[1].error
            return complete(task, [outputs(task)[0], error and error.message])
        return proceed(
            task,
            StartChild(seq=0, workflow="good", input=json(5)),
            StartChild(seq=1, workflow="bad", input=json(5)),
        )

    worker = ScriptedWorker(
        transport,
        names,
        {
            "parent": parent,
            "good": lambda task: complete(task, plain_json(task.input)),
            "bad": lambda task: fail(task, "child said no"),
        },
    )
    async with operating(store, transport, names) as operator, worker.serving():
        run = await operator.wait(await operator.start("parent", json(None), run_id="p"))
        assert plain_json(run.output) == [5, "child said no"]
        assert (await operator.detail("p")).children == ["p.child.0", "p.child.1"]
        assert (await operator.detail("p.child.0")).run.parent_run_id == "p"


async def test_cancel_reaches_running_steps_and_children(
    store: Store, transport: MemoryTransport, names: Names
) -> None:
    def parent(task: WorkflowTask) -> WorkflowDecision:
        return proceed(task, StartChild(seq=0, workflow="child"), call(1, "long"))

    released = asyncio.Event()

    async def long(task: StepTask) -> StepResult:
        await released.wait()
        return answer(task)

    worker = ScriptedWorker(
        transport,
        names,
        {"parent": parent, "child": lambda task: proceed(task, call(0, "long"))},
        {"long": long},
    )
    async with operating(store, transport, names) as operator, worker.serving():
        await operator.start("parent", json(None), run_id="p")
        await eventually(lambda: len(worker.tasks) == 2)
        await operator.cancel("p")
        run = await operator.wait("p")
        assert (run.status, run.error) == (
            RunStatus.CANCELLED,
            Failure(message="the run was cancelled", code="cancelled"),
        )
        assert (await operator.wait("p.child.0")).status is RunStatus.CANCELLED
        await eventually(lambda: sorted(worker.cancelled) == ["p", "p.child.0"])
        released.set()
        await operator.cancel("p")
    with pytest.raises(RunNotFoundError):
        await operator.cancel("nobody")


async def test_a_run_waits_for_a_worker_that_registers_its_workflow(
    store: Store, transport: MemoryTransport, names: Names
) -> None:
    worker = ScriptedWorker(transport, names, {"w": lambda task: complete(task, 1)})
    async with operating(store, transport, names) as operator:
        run_id = await operator.start("w", json(None))
        detail = await operator.detail(run_id)
        assert (detail.run.status, detail.run.workflow_version) == (RunStatus.PENDING, "")
        async with worker.serving():
            assert (await operator.wait(run_id)).status is RunStatus.COMPLETED


async def test_runs_that_waited_are_served_after_a_restart_too(
    store: Store, transport: MemoryTransport, names: Names
) -> None:
    worker = ScriptedWorker(transport, names, {"w": lambda task: complete(task, 1)})
    async with operating(store, transport, names) as operator:
        run_id = await operator.start("w", json(None))
    async with operating(store, transport, names) as operator, worker.serving():
        assert (await operator.wait(run_id)).status is RunStatus.COMPLETED


async def test_work_that_was_out_when_the_operator_stopped_is_finished_by_the_next(
    store: Store, transport: MemoryTransport, names: Names
) -> None:
    worker = ScriptedWorker(transport, names, {"seq": sequence("echo")}, {"echo": echo})
    options = OperatorOptions(resend_delay=timedelta(0))
    await transport.declare([names.tasks("echo"), names.tasks("seq")])
    async with (
        operating(store, transport, names, options=options) as operator,
        ScriptedWorker(transport, names, {"seq": sequence("echo")}).serving(),
    ):
        await operator.start("seq", json(None), run_id="r")
        await eventually(lambda: transport.depth(names.tasks("echo")) == 1)
    # A fresh transport: whatever the old one held is gone.
    async with MemoryTransport(names=names) as fresh:
        worker = ScriptedWorker(fresh, names, {"seq": sequence("echo")}, {"echo": echo})
        async with operating(store, fresh, names, options=options) as operator, worker.serving():
            assert (await operator.wait("r")).status is RunStatus.COMPLETED


async def test_inputs_from_other_processes_are_taken_in(
    store: Store, transport: MemoryTransport, names: Names
) -> None:
    worker = ScriptedWorker(transport, names, {"w": waits_for("go")})
    await store.submit(StartRun(run_id="r", workflow="w"))
    async with operating(store, transport, names) as operator, worker.serving():
        await eventually(lambda: len(worker.turns) == 1)
        await store.submit(StartRun(run_id="q", workflow="w"))
        await eventually(lambda: len(worker.turns) == 2)
        await store.submit(SignalSent(signal_id="1", name="go", payload=json("hi")))
        assert plain_json((await operator.wait("r")).output) == "hi"
        await store.submit(CancelRequested(run_id="q"))
        assert (await operator.wait("q")).status is RunStatus.CANCELLED
        assert await store.inbox(after=0, limit=9) == []


async def test_recorded_steps_are_history_of_the_next_turn(
    store: Store, transport: MemoryTransport, names: Names
) -> None:
    def body(task: WorkflowTask) -> WorkflowDecision:
        if not task.history:
            return proceed(task, RecordStep(seq=0, name="now", output=json(7)), call(1, "echo", 8))
        return complete(task, outputs(task))

    worker = ScriptedWorker(transport, names, {"w": body}, {"echo": echo})
    async with operating(store, transport, names) as operator, worker.serving():
        run = await operator.wait(await operator.start("w", json(None)))
        assert plain_json(run.output) == {"0": 7, "1": 8}


async def test_waiting_ends_with_an_error_when_the_operator_stops(
    store: Store, transport: MemoryTransport, names: Names
) -> None:
    async with operating(store, transport, names) as operator:
        run_id = await operator.start("w", json(None))
        waiting = asyncio.ensure_future(operator.wait(run_id))
        await asyncio.sleep(0)
    with pytest.raises(NoOperatorError):
        await waiting
    with pytest.raises(NoOperatorError):
        await operator.start("w", json(None))
