"""A worker for tests on the wire, and tasks for it as an operator would send them."""

import asyncio
from typing import Any

from msgspec import Raw, json

from durable_worker import StepContext, Worker, WorkflowContext
from durable_worker.edge.plain import Codec
from durable_worker.protocol import codec as wire
from durable_worker.protocol.codec import MessageType
from durable_worker.protocol.names import routing_token
from durable_worker.protocol.tasks import HistoryEvent, PendingSignal, StepTask, WorkflowTask
from tests.integration.worker.desk import Desk


def worker_with(codec: Codec | None, **options: Any) -> Worker:
    worker = Worker(codec=codec, **options)

    @worker.step("own")
    async def own(value: Any, ctx: StepContext) -> Any:
        ctx.info("said 4929-marker", value=value)
        return value

    @worker.step("telling")
    async def telling(value: Any, ctx: StepContext) -> list[object]:
        return [value, dict(ctx.context), ctx.traceparent]

    @worker.workflow("calling")
    async def calling(ctx: WorkflowContext, names: list[str]) -> list[Any]:
        return [await each for each in [ctx.step(name, "4929-marker") for name in names]]

    @worker.workflow("parent")
    async def parent(ctx: WorkflowContext, names: list[str]) -> None:
        for name in names:
            ctx.start_child(name, 1)
        await ctx.wait_signal("never")

    @worker.workflow("fan")
    async def fan(ctx: WorkflowContext, width: int) -> int:
        steps = [ctx.step("own", number) for number in range(width)]
        return sum([await each for each in _together(steps)])

    @worker.workflow("asking")
    async def asking(ctx: WorkflowContext) -> Any:
        ctx.now()
        ctx.patched("new way")
        return await ctx.wait_signal("answer")

    @worker.workflow("catching")
    async def catching(ctx: WorkflowContext) -> str:
        try:
            await ctx.step("own", 1)
        except Exception as error:
            return str(error)
        return "no error"

    @worker.workflow("echoing")
    async def echoing(ctx: WorkflowContext, value: Any) -> Any:
        return value

    return worker


def _together(steps: list[Any]) -> list[Any]:
    return [asyncio.ensure_future(each) for each in steps]


def raw(value: object) -> Raw:
    return Raw(json.encode(value))


async def send_turn(
    desk: Desk,
    workflow: str,
    value: Raw,
    history: list[HistoryEvent] | None = None,
    *,
    task_id: str = "t1",
    signals: list[PendingSignal] | None = None,
) -> WorkflowTask:
    task = WorkflowTask(
        task_id=task_id,
        run_id="run-1",
        workflow=workflow,
        workflow_version="1",
        input=value,
        history=history or [],
        pending_signals=signals,
        group=routing_token(workflow),
        attempt=1,
    )
    await desk.send(workflow, wire.encode(task), MessageType.WORKFLOW_TASK)
    return task


async def send_step(desk: Desk, name: str, value: Raw, **more: Any) -> None:
    task = StepTask(
        run_id="run-1",
        seq=0,
        name=name,
        step_id="run-1:0",
        group=routing_token(name),
        input=value,
        attempt=1,
        **more,
    )
    await desk.send(name, wire.encode(task), MessageType.STEP_TASK)


def in_context(value: object, context: object) -> Raw:
    return raw({"$durable": {"v": 1, "context": context, "value": value}})
