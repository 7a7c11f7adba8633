"""Turns of a served worker, seen from the operator's side of the wire."""

from collections.abc import AsyncIterator

import anyio
import pytest
from msgspec import Raw
from msgspec.structs import replace

from durable_worker import Worker, WorkflowContext
from durable_worker.protocol import codec
from durable_worker.protocol.commands import (
    DecisionStatus,
    RecordStep,
    ScheduleStep,
    WorkflowDecision,
)
from durable_worker.protocol.names import Names
from durable_worker.protocol.results import StepPhase
from durable_worker.protocol.tasks import HistoryEvent, HistoryKind, WorkflowTask
from durable_worker.transports.base import Delivery, Envelope
from durable_worker.transports.memory import MemoryTransport
from tests.integration.worker.desk import Desk, serving

pytestmark = pytest.mark.anyio
NAMES = Names()


@pytest.fixture
async def transport() -> AsyncIterator[MemoryTransport]:
    async with MemoryTransport(names=NAMES) as opened:
        yield opened


def charged(seq: int) -> HistoryEvent:
    return HistoryEvent(seq=seq, kind=HistoryKind.CALL, name="charge", output=Raw(b"%d" % seq))


def charging(starts: list[str]) -> Worker:
    worker = Worker()

    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext) -> list[int]:
        starts.append(ctx.run_id)
        return [await ctx.step("charge", returns=int) for _ in range(3)]

    @worker.workflow("flow", version="2")
    async def newer(ctx: WorkflowContext) -> str:
        return "newer"

    return worker


async def test_a_run_that_comes_back_goes_on_in_the_body_that_was_kept(
    transport: MemoryTransport,
) -> None:
    starts: list[str] = []
    async with serving(charging(starts), transport, NAMES) as desk:
        for known in range(4):
            await desk.send_turn("flow", [charged(seq) for seq in range(known)])
            decision = await desk.decision()
    assert decision.status is DecisionStatus.COMPLETED
    assert bytes(decision.output) == b"[0,1,2]"
    assert starts == ["run-1"]


async def test_with_no_room_to_keep_bodies_every_turn_replays_from_the_top(
    transport: MemoryTransport,
) -> None:
    starts: list[str] = []
    async with serving(charging(starts), transport, NAMES, kept_runs=0) as desk:
        for known in range(4):
            await desk.send_turn("flow", [charged(seq) for seq in range(known)])
            decision = await desk.decision()
    assert bytes(decision.output) == b"[0,1,2]"
    assert len(starts) == 4


async def test_a_history_that_is_not_the_one_seen_before_is_replayed_from_the_top(
    transport: MemoryTransport,
) -> None:
    starts: list[str] = []
    async with serving(charging(starts), transport, NAMES) as desk:
        await desk.send_turn("flow", [charged(0)])
        assert [type(c) for c in (await desk.decision()).commands] == [ScheduleStep]
        other = HistoryEvent(seq=0, kind=HistoryKind.CALL, name="charge", output=Raw(b"9"))
        await desk.send_turn("flow", [other, charged(1), charged(2)])
        assert bytes((await desk.decision()).output) == b"[9,1,2]"
    assert len(starts) == 2


async def test_a_run_stays_on_its_version_and_an_unknown_one_is_refused_by_name(
    transport: MemoryTransport,
) -> None:
    async with serving(charging([]), transport, NAMES) as desk:
        await desk.send_turn("flow", version="2", run_id="run-2")
        assert bytes((await desk.decision()).output) == b'"newer"'
        await desk.send_turn("flow", version="3", run_id="run-3")
        refused = await desk.decision()
    assert refused.status is DecisionStatus.FAILED
    assert refused.error is not None
    assert "version '3' of workflow 'flow' is not registered" in refused.error.message
    assert "only 1, 2" in refused.error.message


async def test_a_local_step_runs_in_the_turn_is_retried_there_and_streams_its_life(
    transport: MemoryTransport,
) -> None:
    worker = Worker()
    attempts: list[int] = []
    events: list[Delivery] = []

    @worker.step("lookup", retries=1)
    async def lookup(key: str) -> str:
        attempts.append(1)
        if len(attempts) == 1:
            raise ConnectionError("away")
        return key.upper()

    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext) -> str:
        return await ctx.local_step(lookup, "a")

    async with serving(worker, transport, NAMES) as desk:
        await transport.consume([NAMES.step_events], events.append, prefetch=10)
        await desk.send_turn("flow")
        decision = await desk.decision()
    assert bytes(decision.output) == b'"A"'
    assert [(type(c), c.seq) for c in decision.commands] == [(RecordStep, 0)]
    phases = [codec.STEP_EVENT.decode(each.envelope.body).phase for each in events]
    assert phases == [StepPhase.RUNNING, StepPhase.COMPLETED]
    assert len(attempts) == 2


def capable(known: int, **more: object) -> WorkflowTask:
    return WorkflowTask(
        task_id=f"run-1#{known}",
        run_id="run-1",
        workflow="flow",
        workflow_version="1",
        history=[charged(seq) for seq in range(known)],
        group="flow",
        attempt=1,
        capabilities=["history-deltas"],
        **more,  # type: ignore[arg-type]
    )


def added(known: int, *, since: str) -> Envelope:
    task = replace(capable(known), since=since, history=[charged(known - 1)])
    return Envelope("workflow-task", codec.encode(task), task.task_id)


async def decided(desk: Desk, known: int) -> WorkflowDecision:
    await desk.send("flow", codec.encode(capable(known)), "workflow-task")
    return await desk.decision()


async def test_a_worker_says_that_it_keeps_a_run_once_it_takes_turns_over_its_own_queue(
    transport: MemoryTransport,
) -> None:
    starts: list[str] = []
    async with serving(charging(starts), transport, NAMES, deltas_from_bytes=0) as desk:
        own = NAMES.turns(desk.service.descriptor.instance_id)
        kept = (await decided(desk, 0)).kept
        assert kept is None
        with anyio.fail_after(5):
            while not await transport.consumers(own):  # noqa: ASYNC110 - it tells nobody
                await anyio.sleep(0.005)
        assert (await decided(desk, 1)).kept == desk.service.descriptor.instance_id
        await transport.send(own, added(2, since="run-1#1"))
        assert (await desk.decision()).kept == desk.service.descriptor.instance_id
        await transport.send(own, added(3, since="run-1#2"))
        decision = await desk.decision()
    assert (decision.status, decision.kept) == (DecisionStatus.COMPLETED, None)
    assert bytes(decision.output) == b"[0,1,2]"
    assert starts == ["run-1"]


async def test_a_turn_that_adds_to_what_a_worker_does_not_keep_is_sent_back_as_it_is(
    transport: MemoryTransport,
) -> None:
    async with serving(charging([]), transport, NAMES, deltas_from_bytes=0) as desk:
        sent = added(2, since="run-1#1")
        await transport.send(NAMES.tasks("flow"), sent)
        assert await desk.dead() == sent
        assert (await decided(desk, 2)).status is DecisionStatus.CONTINUE


@pytest.mark.parametrize("options", [{}, {"kept_runs": 0, "deltas_from_bytes": 0}])
async def test_a_worker_keeps_to_whole_histories_where_they_are_short_or_not_kept(
    transport: MemoryTransport, options: dict[str, int]
) -> None:
    async with serving(charging([]), transport, NAMES, **options) as desk:
        for known in range(3):
            assert (await decided(desk, known)).kept is None
        assert not await transport.consumers(NAMES.turns(desk.service.descriptor.instance_id))


async def test_an_operator_that_does_not_know_of_it_is_not_told_that_a_run_is_kept(
    transport: MemoryTransport,
) -> None:
    async with serving(charging([]), transport, NAMES, deltas_from_bytes=0) as desk:
        for known in range(3):
            await desk.send_turn("flow", [charged(seq) for seq in range(known)])
            assert (await desk.decision()).kept is None
        assert not await transport.consumers(NAMES.turns(desk.service.descriptor.instance_id))
