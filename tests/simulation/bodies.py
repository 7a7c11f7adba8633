"""Workflows of random parts whose outcome is known beforehand, and the worlds that run them.

A part is data, so that one worker serves them all. What a part yields is told twice: by the
workflow below, and by `allowed`, which knows nothing of workflows.
"""

import asyncio
import json
from datetime import timedelta
from itertools import product
from random import Random
from typing import Any

from msgspec import Raw

from durable_worker import FatalError, Retry, StepContext, Undo, Worker, WorkflowContext
from durable_worker.testing.simulation.audit import Outcome
from durable_worker.testing.simulation.chance import ALL_FAULTS, FaultKind
from durable_worker.testing.simulation.journal import journaled
from durable_worker.testing.simulation.plan import (
    SETTLED_WITHIN_SECONDS,
    Cancelled,
    Plan,
    Sent,
    Started,
)

Part = list[Any]
"""[kind, ...]; those that are made of others: [kind, [part, ...]]."""

worker = Worker()
_soon = Retry(attempts=4, initial=timedelta(milliseconds=30))
_patiently = Retry(
    attempts=1_000, initial=timedelta(milliseconds=200), maximum=timedelta(seconds=2)
)


@worker.step("add")
async def add(number: int) -> int:
    return number + 1


@worker.step("flaky", retries=_soon)
async def flaky(fails: int, ctx: StepContext) -> str:
    if ctx.attempt <= fails:
        raise RuntimeError(f"attempt {ctx.attempt}")
    return f"after {fails}"


@worker.step("broken")
async def broken(number: int) -> int:
    raise FatalError(f"broken {number}")


@worker.step("take-back")
async def take_back(undo: Undo[int, int]) -> int:
    return undo.output


@worker.step("plain")
def plain(number: int, ctx: StepContext) -> int:
    ctx.info("here", number=number)
    return number * 2


@worker.workflow("flow")
async def flow(ctx: WorkflowContext, part: Any) -> Any:
    return await perform(ctx, part)


async def perform(ctx: WorkflowContext, part: Part) -> Any:  # noqa: PLR0912 - one for each kind
    match part:
        case ["add", number] if number % 2:
            return await ctx.step(add, number, timeout=2, retries=_patiently)
        case ["add", number]:
            return await ctx.step(add, number)
        case ["plain", number]:
            return await ctx.step(plain, number)
        case ["local", number]:
            return await ctx.local_step(plain, number)
        case ["flaky", fails]:
            return await ctx.step(flaky, fails)
        case ["broken", number]:
            try:
                return await ctx.step(broken, number)
            except Exception as error:
                return str(error)
        case ["sleep", ms]:
            await ctx.sleep(ms / 1000)
            return "slept"
        case ["noted", number]:
            return ctx.side_effect(lambda: number)
        case ["signal", name]:
            return await ctx.wait_signal(name)
        case ["timed", name, ms]:
            try:
                return await ctx.wait_signal(name, timeout=ms / 1000)
            except TimeoutError:
                return "timed out"
        case ["child", inner]:
            return await ctx.child(flow, inner)
        case ["failing-child", number]:
            try:
                return await ctx.child(failing, number)
            except Exception as error:
                return type(error).__name__
        case ["saga", numbers]:
            return await _undone(ctx, numbers)
        case ["laps", name, count]:
            return await ctx.child(laps, {"name": name, "seen": [], "count": count})
        case _:
            return await _combined(ctx, part)


async def _combined(ctx: WorkflowContext, part: Part) -> Any:
    kind, parts = part
    match kind:
        case "sequence":
            return [await perform(ctx, each) for each in parts]
        case "gather":
            return await asyncio.gather(*(perform(ctx, each) for each in parts))
        case "group":
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(perform(ctx, each)) for each in parts]
            return [task.result() for task in tasks]
        case "completed":
            found = [await done for done in asyncio.as_completed([perform(ctx, p) for p in parts])]
            return sorted(map(json.dumps, found))
        case "race":
            tasks = [asyncio.ensure_future(perform(ctx, each)) for each in parts]
            done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)
            return next(task.result() for task in tasks if task in done)
        case _:
            raise AssertionError(part)


async def _undone(ctx: WorkflowContext, numbers: list[int]) -> str:
    try:
        async with ctx.saga() as saga:
            for number in numbers:
                await saga.step(add, number, compensate=take_back)
            await saga.step(broken, 0, compensate=take_back)
    except Exception:
        return f"undone {len(numbers)}"
    return "done"


@worker.workflow("laps")
async def laps(ctx: WorkflowContext, state: Any) -> list[str]:
    """Takes one signal or two in each lap, and leaves others behind that came."""
    handled: list[str] = []
    handling = ctx.on_signal(state["name"], handled.append)
    await ctx.step(add, len(state["seen"]))
    while not handled:
        await ctx.step(plain, 1)
        await ctx.sleep(0.05)
    handling.cancel()
    state["seen"] += handled
    if len(state["seen"]) < state["count"]:
        ctx.continue_as_new(state)
    return sorted(state["seen"])


@worker.workflow("failing")
async def failing(ctx: WorkflowContext, number: int) -> int:
    return await ctx.step(broken, number)


def allowed(part: Part) -> list[Any]:  # noqa: PLR0912 - one for each kind
    """Every value that a part may yield."""
    match part:
        case ["add", number]:
            return [number + 1]
        case ["plain", number] | ["local", number]:
            return [number * 2]
        case ["flaky", fails]:
            return [f"after {fails}"]
        case ["broken", number]:
            return [f"step 'broken' failed [FatalError]: broken {number}"]
        case ["sleep", _]:
            return ["slept"]
        case ["noted", number]:
            return [number]
        case ["signal", name]:
            return [name.upper()]
        case ["timed", name, _]:
            return ["timed out"] if name.startswith("never") else ["timed out", name.upper()]
        case ["child", inner]:
            return allowed(inner)
        case ["failing-child", _]:
            return ["ChildFailedError"]
        case ["saga", numbers]:
            return [f"undone {len(numbers)}"]
        case ["laps", _, count]:
            return [[str(each) for each in range(count)]]
        case ["race", parts]:
            return [value for each in parts for value in allowed(each)]
        case [kind, parts]:
            found = [list(each) for each in product(*map(allowed, parts))]
            return [sorted(map(json.dumps, e)) for e in found] if kind == "completed" else found
        case _:
            raise AssertionError(part)


LEAVES = ("add", "add", "add", "plain", "flaky", "broken", "sleep", "noted", "local")
WAITS = ("signal", "timed", "raced")
WHOLES = ("child", "failing-child", "saga", "laps")
COMBINATIONS = ("sequence", "sequence", "gather", "gather", "group", "completed", "race")


class Maker:
    """Makes parts, and the signals that they wait for."""

    def __init__(self, random: Random, run_id: str) -> None:
        self._random = random
        self._run_id = run_id
        self._count = 0
        self.signals: list[Sent] = []

    def part(self, size: int) -> Part:
        """One of about so many operations."""
        random = self._random
        if size > 1:
            kind = random.choice((*COMBINATIONS, "child"))
            if kind == "child":
                return ["child", self.part(size - 1)]
            count = min(size, random.choice((2, 2, 3)))
            return [kind, [self.part(max(1, size // count)) for _ in range(count)]]
        return self._leaf(random.choice((*LEAVES, *LEAVES, *WAITS, *WHOLES)))

    def _leaf(self, kind: str) -> Part:
        random = self._random
        self._count += 1
        match kind:
            case "flaky":
                return ["flaky", random.randint(1, 3)]
            case "sleep":
                return ["sleep", random.choice((1, 30, 400, 2_000))]
            case "saga":
                return ["saga", list(range(random.randint(1, 2)))]
            case "signal" | "raced":
                name = f"go-{self._run_id}-{self._count}"
                after = random.choice((0.0, 0.1, 0.5, 3.0))
                payload = Raw(json.dumps(name.upper()).encode())
                self.signals.append(Sent(name, payload, after))
                return ["signal", name] if kind == "signal" else ["timed", name, 500]
            case "laps":
                name, count = f"lap-{self._run_id}-{self._count}", random.choice((1, 3, 5))
                for each in range(count):
                    payload = Raw(json.dumps(str(each)).encode())
                    self.signals.append(Sent(name, payload, random.choice((0.0, 0.1, 0.3, 2.0))))
                return ["laps", name, count]
            case "timed":
                return ["timed", f"never-{self._run_id}-{self._count}", 300]
            case "failing-child":
                return ["failing-child", self._count]
            case "child":
                return ["child", ["add", self._count]]
            case _:
                return [kind, self._count]


served = journaled(worker, {})


def plan_for(
    seed: int,
    *,
    kinds: frozenset[FaultKind] = ALL_FAULTS,
    patience: float = SETTLED_WITHIN_SECONDS,
) -> Plan:
    """One to three small runs; now and then one of them is cancelled on its way."""
    random = Random(seed * 7 + 1)
    starts: list[Started] = []
    signals: list[Sent] = []
    cancels: list[Cancelled] = []
    for number in range(random.choice((1, 1, 2, 3))):
        run_id = f"run-{number}"
        maker = Maker(random, run_id)
        part = maker.part(random.choice((1, 2, 3, 4, 5)))
        outcomes = {completed(value) for value in allowed(part)}
        if random.random() < 0.1:
            cancels.append(Cancelled(run_id, random.choice((0.1, 0.5, 1.0))))
            outcomes.add(Outcome("cancelled", "the run was cancelled"))
        starts.append(Started(run_id, "flow", Raw(json.dumps(part).encode()), frozenset(outcomes)))
        signals += maker.signals
    return Plan(served, tuple(starts), tuple(signals), tuple(cancels), kinds, patience)


def completed(value: Any) -> Outcome:
    return Outcome("completed", json.dumps(value, separators=(",", ":")))
