"""One worker whose runs have a secret in everything that travels."""

from collections.abc import Sequence
from typing import Any

from durable_worker import FatalError, StepContext, Worker, WorkflowContext
from durable_worker.edge.plain import Codec

SECRET = "4929-marker-4929"


def secret_worker(codec: Codec | None, *, undone: list[str] | None = None) -> Worker:
    """A new one each time, since a codec belongs to a worker."""
    worker = Worker(codec=codec)
    undone = [] if undone is None else undone

    @worker.step("echo")
    async def echo(value: str, ctx: StepContext) -> str:
        ctx.info(f"echoing {value}", value=value)
        return value

    @worker.step("now#named-like-a-marker")
    async def named_like_a_marker(value: str) -> str:
        return value

    @worker.step("fail")
    async def fail(value: str) -> None:
        raise FatalError(f"no good: {value}", code="no-good", details={"value": value})

    @worker.step("undo-echo")
    async def undo_echo(value: dict[str, str]) -> None:
        undone.append(value["output"])

    @worker.workflow("child")
    async def child(ctx: WorkflowContext, value: str) -> str:
        return await ctx.step(echo, value)

    @worker.workflow("everything")
    async def everything(ctx: WorkflowContext, value: str) -> dict[str, object]:
        ctx.set_event("state", {"is": value})
        ctx.now()
        local = await ctx.local_step(echo, value)
        marked = await ctx.local_step(named_like_a_marker, value)
        aside = ctx.side_effect(lambda: value, returns=str)
        come = await ctx.wait_signal(f"go-{ctx.run_id}", returns=str)
        below = await ctx.child(child, value)
        return {"all": [local, marked, aside, come, below, await ctx.step(echo, value)]}

    @worker.workflow("failing")
    async def failing(ctx: WorkflowContext, value: str) -> None:
        await ctx.step(fail, value)

    @worker.workflow("told")
    async def told(ctx: WorkflowContext, value: str) -> str:
        try:
            await ctx.child(failing, value)
        except Exception as error:
            return f"told {error}"
        return "nothing was told"

    @worker.workflow("undoing")
    async def undoing(ctx: WorkflowContext, value: str) -> None:
        await ctx.step("echo", value, compensate="undo-echo")
        ctx.set_event("echoed", value)
        await ctx.wait_signal("never")

    @worker.workflow("large")
    async def large(ctx: WorkflowContext, size: int) -> int:
        return len(await ctx.step(grow, size))

    @worker.step("grow")
    async def grow(size: int) -> str:
        return SECRET + "x" * size

    return worker


def context_worker(seen: list[tuple[str, object]]) -> Worker:
    """Notes what context each part of a run was given."""
    worker = Worker()

    def note(part: str, context: object, traceparent: str | None) -> None:
        seen.append((part, (context, traceparent)))

    @worker.step("noting")
    async def noting(part: str, ctx: StepContext) -> None:
        note(part, dict(ctx.context or {}), ctx.traceparent)

    @worker.workflow("below")
    async def below(ctx: WorkflowContext) -> Any:
        await ctx.step(noting, "child's step")
        return [dict(ctx.context), ctx.traceparent]

    @worker.workflow("above")
    async def above(ctx: WorkflowContext) -> Any:
        await ctx.step(noting, "step")
        await ctx.local_step(noting, "local step")
        return [[dict(ctx.context), ctx.traceparent], await ctx.child(below)]

    return worker


def parts(seen: Sequence[tuple[str, object]]) -> dict[str, object]:
    return dict(seen)
