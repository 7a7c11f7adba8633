"""The steps of a second application, and the one queue behind which all of its bodies are.

The bodies are in `bodies`: a queue for each of them would be more than a broker wants to carry.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from durable_worker import (
    FatalError,
    Retry,
    StepContext,
    Undo,
    Worker,
    WorkflowContext,
)
from tests.interop.journal import VARIABLE, journal, read_journal
from tests.interop.lifeline import end_with_the_session
from tests.interop.payloads import Everything

worker = Worker()
end_with_the_session()

MOMENT = timedelta(milliseconds=100)


@dataclass
class Act:
    """What a step shall do: its first calls with this key last `seconds`, or fail with `code`.

    A call that has no entry in `seconds` any more takes no time.
    """

    key: str
    seconds: list[float] = field(default_factory=list[float])
    failures: int = 0
    code: str = "flaky"
    is_fatal: bool = False


@dataclass
class Call:
    """Which body to run; `key` names the run in the journal and in signals."""

    body: str
    key: str
    more: Any = None


class FlakyError(Exception):
    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


def times_called(key: str) -> int:
    """How often a step was called with this key so far, in whatever process."""
    entries = read_journal(Path(os.environ[VARIABLE]))
    return sum(each.what == "call" and each.attempt == key for each in entries)


# Steps


@worker.step("b.act")
async def act(task: Act, ctx: StepContext) -> str:
    before = times_called(task.key)
    journal("call", task.key)
    journal("start", f"{ctx.step_id}:{ctx.attempt}")
    if before < len(task.seconds):
        await asyncio.sleep(task.seconds[before])
    if before < task.failures:
        message = f"call {before + 1} of {task.key}"
        if task.is_fatal:
            raise FatalError(message, code=task.code, details={"call": before + 1})
        raise FlakyError(message, task.code)
    journal("end", f"{ctx.step_id}:{ctx.attempt}")
    return f"did {task.key}"


@worker.step("b.undo", retries=Retry(attempts=3, initial=MOMENT / 2, jitter=0))
async def undo(done: Undo[Act, str], ctx: StepContext) -> None:
    """Fails at its first call for a key that says so, and is slow for one that says so."""
    key = f"undo {done.input.key}"
    before = times_called(key)
    journal("call", key)
    journal("start", f"{ctx.step_id}:{ctx.attempt}")
    assert done.output == f"did {done.input.key}"
    if "slow" in key and not before:
        await asyncio.sleep(0.5)
    if "flaky" in key and not before:
        raise ConnectionError("could not be undone yet")
    journal("end", f"{ctx.step_id}:{ctx.attempt}")


@worker.step("b.echo")
async def echo(value: Everything) -> Everything:
    return value


@worker.step("b.text")
def text(length: int) -> str:
    return 'ß\N{GRINNING FACE}\x00\n"\\' * length


# Workflows

Body = Callable[[WorkflowContext, Call], Awaitable[Any]]
BODIES: dict[str, Body] = {}


@worker.workflow("b.run")
async def run(ctx: WorkflowContext, call: Call) -> Any:
    return await BODIES[call.body](ctx, call)


@worker.workflow("b.versioned")
async def first_version(ctx: WorkflowContext, name: str) -> list[str]:
    await ctx.wait_signal(name)
    return [ctx.version, "first"]


@worker.workflow("b.versioned", version="2")
async def second_version(ctx: WorkflowContext, name: str) -> list[str]:
    await ctx.wait_signal(name)
    return [ctx.version, "second"]


def body(function: Body) -> Body:
    BODIES[function.__name__] = function
    return function
