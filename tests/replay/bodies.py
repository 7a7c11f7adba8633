"""Bodies made of random operations."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from durable_worker import (
    RegistrationError,
    Retry,
    SideEffectFailedError,
    StepTimeoutError,
    TaskFailedError,
    UnsupportedByOperatorError,
    Worker,
    WorkflowContext,
)
from durable_worker.interceptors import Interceptor


@dataclass(frozen=True)
class Do:
    """One of the operations of `_do`."""

    kind: str
    tag: int


@dataclass(frozen=True)
class Combine:
    """Parts in sequence, or together: gather, race, group, completed, timeout, saga."""

    how: str
    parts: "tuple[Node, ...]"


Node = Do | Combine

LEAVES = (
    *("step", "step", "failing", "sleep", "signal", "timed", "child", "now", "local", "effect"),
    *("publish", "event", "hook", "unused-hook"),
    *("impatient", "started", "forgotten", "break", "task"),
    *("replaced", "inserted", "removed"),
    *("undone", "broken-effect", "unsupported", "listen", "answer", "cleanup"),
)
COMBINATIONS = ("sequence", "gather", "race", "group", "completed", "timeout", "saga")


async def perform(ctx: WorkflowContext, node: Node, log: list[str]) -> str:
    match node:
        case Do():
            outcome = await _do(ctx, node)
        case Combine(how="sequence"):
            outcome = ",".join([await perform(ctx, part, log) for part in node.parts])
        case Combine(how="gather"):
            results = await asyncio.gather(
                *(perform(ctx, part, log) for part in node.parts), return_exceptions=True
            )
            outcome = "|".join(map(str, results))
        case Combine(how="group"):
            outcome = await _group(ctx, node.parts, log)
        case Combine(how="race"):
            outcome = await _race(ctx, node.parts, log)
        case Combine(how="completed"):
            outcome = await _completed(ctx, node.parts, log)
        case Combine(how="saga"):
            outcome = await _saga(ctx, node.parts, log)
        case Combine(how="timeout"):
            try:
                async with asyncio.timeout(5):
                    outcome = await perform(ctx, node.parts[0], log)
            except TimeoutError:
                outcome = "timeout"
        case _:
            raise AssertionError(node)
    log.append(outcome)
    return outcome


async def _do(ctx: WorkflowContext, node: Do) -> str:  # noqa: PLR0912 - one for each kind
    name = f"{node.kind}-{node.tag}"
    match node.kind:
        case "step" | "failing":
            try:
                return str(await ctx.step(name, node.tag))
            except Exception as error:
                return f"E{error.__class__.__name__}"
        case "sleep":
            await ctx.sleep(node.tag + 1)
            return "slept"
        case "signal":
            return str(await ctx.wait_signal(name))
        case "timed":
            try:
                return str(await ctx.wait_signal(f"shared-{node.tag % 2}", timeout=3))
            except TimeoutError:
                return "timed out"
        case "child":
            return str(await ctx.child(name, node.tag))
        case "now":
            return str(ctx.now().timestamp())
        case "local":
            return str(await ctx.local_step(local_work))
        case "effect":
            return str(ctx.side_effect(lambda: node.tag))
        case "publish":
            ctx.set_event(name, node.tag)
            return "published"
        case "event":
            try:
                return str(await ctx.wait_event(f"shared-{node.tag % 2}", timeout=3))
            except TimeoutError:
                return "no event"
        case "replaced" | "inserted" | "removed" | "unpatched":
            return await _do_patched(ctx, node, name)
        case "impatient" | "started" | "forgotten" | "break" | "task":
            return await _do_with_handles(ctx, node, name)
        case "undone" | "broken-effect" | "unsupported" | "listen":
            return await _do_beside(ctx, node, name)
        case "answer" | "cleanup":
            return await _do_at_rest(ctx, node, name)
        case "hook" | "unused-hook":
            return await _called_back(ctx, name, is_awaited=node.kind == "hook")
        case _:
            raise AssertionError(node)


async def _do_with_handles(ctx: WorkflowContext, node: Do, name: str) -> str:
    match node.kind:
        case "impatient":
            try:
                patience = Retry(attempts=2, jitter=0)
                return str(await ctx.step(name, node.tag, timeout=2, retries=patience))
            except StepTimeoutError as error:
                return f"too late at {error.seq}"
        case "started":
            child = ctx.start_child(name, node.tag)
            return f"{await ctx.step('told', child.run_id)} {await child}"
        case "forgotten":
            return ctx.start_child(name, node.tag).run_id
        case "break":
            return str(await ctx.breakpoint(name))
        case _:
            task = ctx.task(f"{name}-{ctx.random.random()}")
            handed_out = await ctx.step("hand-out", task.token)
            try:
                return f"{handed_out} {await task.wait(timeout=9)}"
            except (TaskFailedError, TimeoutError) as error:
                return f"{handed_out} {error}"


async def _do_patched(ctx: WorkflowContext, node: Do, name: str) -> str:
    match node.kind:
        case "replaced":
            return str(await ctx.step("new" if ctx.patched(name) else "old"))
        case "inserted":
            added = await ctx.step("new") if ctx.patched(name) else ""
            return f"{added}{await ctx.step('old')}"
        case "removed":
            return "new" if ctx.patched(name) else str(await ctx.step("old"))
        case _:
            return str(await ctx.step("old"))


async def _do_beside(ctx: WorkflowContext, node: Do, name: str) -> str:
    match node.kind:
        case "undone":
            return str(await ctx.step(name, node.tag, compensate="undo-step"))
        case "broken-effect":
            try:
                return str(ctx.side_effect(lambda: 1 // 0))
            except SideEffectFailedError as error:
                return str(error)
        case "unsupported":
            try:
                ctx.upsert_search_attributes({"a": 1})
            except UnsupportedByOperatorError as error:
                return error.capability
            return "set"
        case _:

            async def handle(payload: object) -> None:
                await ctx.step("handle", payload)

            ctx.on_signal(f"shared-{node.tag % 2}", handle)
            return "listening"


async def _do_at_rest(ctx: WorkflowContext, node: Do, name: str) -> str:
    """What happens when the body comes to rest, or is cancelled there."""
    if node.kind == "cleanup":
        try:
            return str(await ctx.step(name, node.tag))
        finally:
            await ctx.step("clean-up", node.tag)
    state = {"at": "start"}
    with suppress(RegistrationError):  # the same part may come several times in one body
        ctx.on_query(name, lambda: state)
    state["at"] = str(await ctx.step(name, node.tag))
    await ctx.sleep(node.tag + 1)
    state["at"] = "end"
    return "answered"


async def _called_back(ctx: WorkflowContext, name: str, *, is_awaited: bool) -> str:
    """A webhook that is outstanding during a step, then given up, then taken up again."""
    hook = ctx.webhook()
    asked = str(await ctx.step(name, hook.token))
    if not is_awaited:
        return asked
    try:
        return f"{asked} {await hook.wait(timeout=2)}"
    except TimeoutError:
        return f"{asked} late {await hook}"


async def local_work() -> str:
    raise AssertionError("run by the model")


async def _saga(ctx: WorkflowContext, parts: Sequence[Node], log: list[str]) -> str:
    """Fails in the end: what its steps have done is undone, what was done beside it is not."""
    try:
        async with ctx.saga() as saga:
            saga.add("undo-added", 1)
            done = asyncio.gather(
                *(saga.step("do", i, compensate="undo-do") for i in range(len(parts))),
                perform(ctx, parts[0], log),
            )
            await saga.step("failing-do", compensate="undo-never")
            return f"{await done} done"
    except Exception as error:
        return f"undone {len(getattr(error, '__notes__', ()))}"


async def _group(ctx: WorkflowContext, parts: Sequence[Node], log: list[str]) -> str:
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(perform(ctx, part, log)) for part in parts]
    except BaseExceptionGroup as failures:
        return f"G{len(failures.exceptions)}"
    return "+".join(task.result() for task in tasks)


async def _race(ctx: WorkflowContext, parts: Sequence[Node], log: list[str]) -> str:
    tasks = {asyncio.ensure_future(perform(ctx, part, log)) for part in parts}
    done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    return "first:" + "/".join(task.result() for task in done)


async def _completed(ctx: WorkflowContext, parts: Sequence[Node], log: list[str]) -> str:
    results = []
    for future in asyncio.as_completed([perform(ctx, part, log) for part in parts]):
        results.append(await future)
        if len(results) == 2:
            await ctx.step("between", len(results))
    return ">".join(results)


def before_the_patches(node: Node) -> Node:
    """The body as it was before the operations that ask for patches were changed."""
    match node:
        case Do(kind="replaced" | "inserted" | "removed"):
            return Do("unpatched", node.tag)
        case Combine():
            return Combine(node.how, tuple(before_the_patches(part) for part in node.parts))
        case _:
            return node


def worker_for(
    node: Node, *, fails: bool = False, interceptors: Sequence[Interceptor] = ()
) -> Worker:
    """Serves a body; one that `fails` does so with the error of a step, after the rest."""
    worker = Worker(interceptors=interceptors)

    @worker.workflow("flow")
    async def flow(ctx: WorkflowContext) -> list[str]:
        log: list[str] = []
        await perform(ctx, node, log)
        if fails:
            await ctx.step("failing-last")
        return log

    worker.step("local-work")(local_work)
    return worker
