"""One body for each operation of the API, for runs that a NestJS operator drives.

What a body sees is told to the journal where a replay from the top could see something else.
"""

import asyncio
import os
from datetime import timedelta
from typing import Any

from durable_worker import (
    ChildFailedError,
    FatalError,
    Retry,
    SideEffectFailedError,
    StepFailedError,
    StepTimeoutError,
    TaskFailedError,
    WorkflowContext,
)
from tests.interop.acts import (
    MOMENT,
    Act,
    Call,
    FlakyError,
    act,
    body,
    echo,
    run,
    text,
    undo,
    worker,
)
from tests.interop.journal import journal
from tests.interop.payloads import Everything

__all__ = ["CODE", "worker"]

CODE = "INTEROP_CODE"
"""`new` where the process stands for a deployment of changed bodies."""


@body
async def acts(ctx: WorkflowContext, call: Call) -> str:
    """One step after a while, for children."""
    await ctx.sleep(float(call.more or 0))
    return await ctx.step(act, Act(call.key))


@body
async def timeouts(ctx: WorkflowContext, call: Call) -> dict[str, Any]:
    policy = Retry(attempts=2, initial=MOMENT / 2, jitter=0)
    slow = Act(f"{call.key} slow", seconds=[1.0])
    second = await ctx.step(act, slow, timeout=0.4, retries=policy)
    caught: dict[str, Any] = {}
    try:
        await ctx.step("b.act", Act(f"{call.key} late", seconds=[0.8]), timeout=MOMENT)
    except StepTimeoutError as error:
        caught = {"code": error.code, "text": str(error), "seq": error.seq}
    await ctx.sleep(1.0)  # what came too late is in history now
    last = await ctx.step(act, Act(f"{call.key} last"), timeout=timedelta(seconds=30))
    return {"second": second, "caught": caught, "last": last}


@body
async def sagas(ctx: WorkflowContext, call: Call) -> None:
    """A scope that fails and is undone, then a body that fails and is undone."""
    key = call.key
    await ctx.step(act, Act(f"{key} outer"), compensate=undo)
    try:
        async with ctx.saga() as saga:
            await saga.step("b.act", Act(f"{key} a"), compensate="b.undo")
            await saga.step(act, Act(f"{key} b flaky"), compensate=undo)
            saga.add(act, Act(f"{key} added"))
            await saga.step(act, Act(f"{key} fails", failures=1, is_fatal=True), compensate=undo)
    except StepFailedError as error:
        ctx.set_event("caught", error.code)
    async with ctx.saga() as kept:
        await kept.step(act, Act(f"{key} kept"), compensate=undo)
    raise FatalError("the order was withdrawn", code="withdrawn", details={"key": key})


@body
async def undone(ctx: WorkflowContext, call: Call) -> None:
    for name in call.more:
        await ctx.step(act, Act(f"{call.key} {name}"), compensate=undo)
    raise FatalError("nothing of it", code="undone")


@body
async def children(ctx: WorkflowContext, call: Call) -> dict[str, Any]:
    key = call.key
    later = ctx.start_child(run, Call("acts", f"{key} later"))
    broken = ctx.start_child("b.run", Call("fails", f"{key} broken"))
    step = await ctx.step(act, Act(f"{key} beside"))
    forgotten = ctx.start_child(run, Call("acts", f"{key} forgotten", 1.0))
    failure = ""
    try:
        await broken
    except ChildFailedError as error:
        failure = error.message
    results = await asyncio.gather(
        later, ctx.child("b.run", Call("acts", f"{key} awaited"), returns=str)
    )
    ctx.start_child(run, Call("acts", f"{key} last"))
    return {
        "step": step,
        "failure": failure,
        "results": results,
        "forgotten": forgotten.run_id,
    }


@body
async def fails(ctx: WorkflowContext, call: Call) -> None:
    raise FatalError(f"{call.key} is broken", code="broken")


@body
async def awaits_child(ctx: WorkflowContext, call: Call) -> str:
    handle = ctx.start_child(run, Call("waits", call.key))
    ctx.set_event("child", handle.run_id)
    try:
        return str(await handle.result(timeout=30))
    except ChildFailedError as error:
        return f"child: {error.message}"


@body
async def waits(ctx: WorkflowContext, call: Call) -> Any:
    return await ctx.wait_signal(call.key)


@body
async def outside(ctx: WorkflowContext, call: Call) -> list[Any]:
    """Stops at a breakpoint, then has two tasks done by somebody else."""
    await ctx.breakpoint("before the tasks")
    seen: list[Any] = []
    approval = ctx.task("approval", returns=dict[str, int])
    refusal = ctx.task("refusal")
    seen.append(await approval)
    try:
        await refusal
    except TaskFailedError as error:
        seen.append([error.message, error.code, error.details])
    return seen


@body
async def listens(ctx: WorkflowContext, call: Call) -> list[Any]:
    """Handles each signal by a step, beside a body that works on its own."""
    seen: list[Any] = []
    is_enough = asyncio.Event()

    async def handle(number: int) -> None:
        seen.append(number)
        await ctx.step(act, Act(f"{call.key} signal {number}"))
        if len(seen) == call.more:
            is_enough.set()

    ctx.on_signal(call.key, handle, returns=int)
    for turn in range(3):
        await ctx.step(act, Act(f"{call.key} turn {turn}"))
    await is_enough.wait()
    return seen


@body
async def values(ctx: WorkflowContext, call: Call) -> dict[str, Any]:
    """Tells the journal at every passage what it saw: the same each time, if it is stable."""

    def refuse() -> None:
        journal("effect", call.key)
        raise FlakyError(f"no setting in {os.getpid()}", "no-setting")

    seen: dict[str, Any] = {
        "now": ctx.now().isoformat(),
        "uuid": str(ctx.uuid()),
        "random": ctx.random.random(),
        "pid": ctx.side_effect(os.getpid, returns=int),
    }
    try:
        ctx.side_effect(refuse)
    except SideEffectFailedError as error:
        seen["effect"] = [error.message, error.code]
    seen["local"] = await ctx.local_step(act, Act(f"{call.key} local"))
    try:
        await ctx.local_step(act, Act(f"{call.key} broken", failures=9, code="still-broken"))
    except StepFailedError as error:
        seen["broken"] = [error.message, error.code]
    await ctx.step(act, Act(f"{call.key} step"))
    seen["uuid later"] = str(ctx.uuid())
    journal("passage", f"{call.key} {seen}")
    await ctx.wait_signal(call.key)
    journal("passage", f"{call.key} {seen}")
    await ctx.sleep_until(ctx.now() + MOMENT)
    await ctx.sleep_until(ctx.now() - MOMENT)
    return seen


@body
async def policies(ctx: WorkflowContext, call: Call) -> list[Any]:
    """A policy that backs off, and failures that it does not try again."""
    backing_off = Retry(attempts=4, initial=MOMENT, factor=3, maximum=4 * MOMENT, jitter=0.2)
    seen: list[Any] = [
        await ctx.step(act, Act(f"{call.key} flaky", failures=3), retries=backing_off)
    ]
    final = Retry(attempts=4, initial=MOMENT / 10, non_retryable=("hopeless", ConnectionError))
    for name, code, is_fatal in (
        ("listed", "hopeless", False),
        ("class", "ConnectionError", False),
        ("fatal", "declined", True),
        ("spent", "other", False),
    ):
        broken = Act(f"{call.key} {name}", failures=9, code=code, is_fatal=is_fatal)
        try:
            await ctx.step(act, broken, retries=final)
        except StepFailedError as error:
            seen.append([error.message, error.code])
    return seen


@body
async def patches(ctx: WorkflowContext, call: Call) -> list[str]:
    """Waits before and after what was changed; history does not tell of a wait that goes on."""
    is_new = os.environ.get(CODE) == "new"
    ctx.on_signal(f"{call.key} poke", str)
    seen = [await ctx.step(act, Act(f"{call.key} begin"))]
    await ctx.wait_signal(f"{call.key} before")
    if is_new and ctx.patched("check"):
        seen.append(await ctx.step(act, Act(f"{call.key} check")))
    seen.append(await ctx.step(act, Act(f"{call.key} work")))
    if is_new and ctx.patched("report"):
        seen.append(await ctx.step(act, Act(f"{call.key} report")))
    await ctx.wait_signal(f"{call.key} after")
    return seen


@body
async def elsewhere(ctx: WorkflowContext, call: Call) -> str:
    return await ctx.step(act, Act(call.key), partition="blue")


@body
async def echoes(ctx: WorkflowContext, call: Call) -> dict[str, Any]:
    """Every way that a payload takes through the operator's store."""
    sent = Everything.example()
    ctx.set_event("everything", sent)
    ways = {
        "step": await ctx.step(echo, sent),
        "local step": await ctx.local_step(echo, sent),
        "side effect": ctx.side_effect(lambda: sent, returns=Everything),
        "child": await ctx.child("b.run", Call("returns", call.key), returns=Everything),
        "signal": await ctx.wait_signal(call.key, returns=Everything),
    }
    return {"ways": {way: got == sent for way, got in ways.items()}, "value": ways["step"]}


@body
async def returns(ctx: WorkflowContext, call: Call) -> Everything:
    return Everything.example()


@body
async def texts(ctx: WorkflowContext, call: Call) -> list[Any]:
    """A text that is all that JSON, JavaScript and a database stumble over; large, if asked for."""
    given = await ctx.step(text, call.more)
    local = await ctx.local_step(text, call.more)
    await ctx.sleep(MOMENT)
    return [given == text(call.more), local == text(call.more), given]


@body
async def races(ctx: WorkflowContext, call: Call) -> dict[str, Any]:
    """Who comes first: a step, a timer and a signal each once; the others are given up."""
    winners: list[str] = []
    for number, (step_seconds, timer_seconds) in enumerate([(0.0, 5.0), (1.0, 0.2), (2.0, 5.0)]):
        runners = {
            asyncio.create_task(each): name
            for name, each in {
                "step": ctx.step(act, Act(f"{call.key} {number}", seconds=[step_seconds])),
                "timer": ctx.sleep(timer_seconds),
                "signal": ctx.wait_signal(f"{call.key} {number}"),
            }.items()
        }
        done, losers = await asyncio.wait(runners, return_when=asyncio.FIRST_COMPLETED)
        winners += sorted(runners[each] for each in done)
        for loser in losers:
            loser.cancel()
        await asyncio.gather(*losers, return_exceptions=True)

    paces = [0.3, 0.0, 0.6]
    runners_up = [ctx.step(act, Act(f"{call.key} {pace}", seconds=[pace])) for pace in paces]
    arrivals: list[str] = []
    for each in asyncio.as_completed(runners_up):
        arrivals.append(await each)
        ctx.set_event("arrivals", arrivals)  # what the body has seen is on record
    return {"winners": winners, "arrivals": arrivals}


@body
async def groups(ctx: WorkflowContext, call: Call) -> dict[str, Any]:
    """Failures beside what still runs."""
    key = call.key
    broken = Act(f"{key} broken", failures=9, is_fatal=True, code="broken")
    together = await asyncio.gather(
        ctx.step(act, Act(f"{key} good")), ctx.step(act, broken), return_exceptions=True
    )
    outcome: list[Any] = [
        each.code if isinstance(each, StepFailedError) else each for each in together
    ]
    patient: asyncio.Task[Any] | None = None
    try:
        async with asyncio.TaskGroup() as group:
            patient = group.create_task(ctx.wait_signal(f"{key} never"))
            group.create_task(ctx.step(act, broken))
    except* StepFailedError as errors:
        outcome.append(f"{len(errors.exceptions)} failed")
    assert patient is not None
    outcome.append(f"sibling cancelled: {patient.cancelled()}")
    try:
        async with asyncio.timeout(0.2):
            await ctx.step(act, Act(f"{key} slow", seconds=[0.7]))
    except TimeoutError:
        outcome.append("too slow")
    waited = await asyncio.wait_for(ctx.step(act, Act(f"{key} in time")), 30)
    await ctx.sleep(0.8)
    return {"outcome": outcome, "waited": waited}


@body
async def unsupported(ctx: WorkflowContext, call: Call) -> None:
    await ctx.step(act, Act(call.key))
    match call.more:
        case "continue-as-new":
            ctx.continue_as_new(call)
        case "search-attributes":
            ctx.upsert_search_attributes({"tier": "free"})
        case _:
            await ctx.call_entity("account", "7", "deposit", 5)


@body
async def crowded(ctx: WorkflowContext, call: Call) -> list[int]:
    """Gets signals while each of its decisions takes the operator long to apply."""
    seen: list[int] = []
    is_enough = asyncio.Event()
    works = [
        asyncio.create_task(ctx.step(act, Act(f"{call.key} {n}", seconds=[0.1 * n])))
        for n in range(30)
    ]
    await asyncio.sleep(0)  # so that the steps are asked for first

    def handle(number: int) -> None:
        seen.append(number)
        if len(seen) == call.more:
            is_enough.set()

    ctx.on_signal(call.key, handle, returns=int)
    await asyncio.gather(*works)
    await is_enough.wait()
    return seen


@body
async def answers(ctx: WorkflowContext, call: Call) -> str:
    """Says where it is, and takes only an update that is a name."""
    at = "waiting"
    ctx.on_query("at", lambda: at)

    def is_a_name(update: str) -> bool:
        return update.isalpha()

    name = await ctx.wait_update("name", validate=is_a_name, returns=str)
    at = f"working for {name}"
    done = await ctx.step(act, Act(f"{call.key} {name}", seconds=[0.3]))
    at = "done"
    return done
