"""What steps do to the world outside, and the steps that do it."""

import asyncio
import inspect
from collections.abc import Callable, Collection, Mapping
from copy import copy
from random import Random
from typing import Any, cast

from msgspec import Struct

from durable_worker.replay.definitions import StepDefinition
from durable_worker.testing.simulation.errors import OutsideSimulationError
from durable_worker.testing.simulation.loop import ProcessLoop
from durable_worker.worker.registry import Worker
from durable_worker.worker.step_context import current_step

StepKey = tuple[str, int]


class Execution(Struct):
    """One start of one attempt, and how far it got (virtual seconds)."""

    process: str
    run_id: str
    seq: int
    attempt: int
    name: str
    started_at: float
    effect_at: float | None = None
    ended_at: float | None = None

    @property
    def key(self) -> StepKey:
        return self.run_id, self.seq


class Journal:
    """Kept by the world: no crash of a process reaches it."""

    def __init__(self) -> None:
        self.executions: list[Execution] = []
        self.forbidden: list[str] = []
        """Steps that were called without leave to run."""
        self.on_start: Callable[[Execution], None] | None = None


def journaled(
    worker: Worker, stubs: Mapping[str, Any], real: Collection[str] | None = None
) -> Worker:
    """The same worker, whose steps write down what they do, and take their (virtual) time.

    A stub is what a step returns, an exception that it raises, or a function of its input; stubs of
    steps that the worker does not have are added. `real` steps are run as they are (None: all).
    """

    def replaced(definition: StepDefinition) -> StepDefinition:
        definition.check()
        name = definition.name
        made = copy(definition)
        made.is_async = True
        if name in stubs:
            stub = stubs[name]
            made.fn = _written_down(name, lambda arguments: _stubbed(stub, definition, arguments))
        elif real is None or name in real:
            made.fn = _written_down(name, lambda arguments: definition.fn(*arguments))
        else:
            made.fn = _forbidden(name)
        return made

    made = worker.with_steps(replaced)
    made.codec = None  # nothing leaves this process
    for name in stubs:
        if name not in worker.steps:
            made.steps[name] = replaced(StepDefinition(name, _of_another_worker))
    return made


async def _of_another_worker(value: Any) -> Any:
    raise AssertionError(f"{value!r} came to a step that is stubbed")


def _stubbed(stub: Any, definition: StepDefinition, arguments: tuple[Any, ...]) -> Any:
    if isinstance(stub, BaseException):
        raise stub
    if not callable(stub):
        return stub
    return stub(definition.input_among(arguments))


def _written_down(name: str, act: Callable[[tuple[Any, ...]], Any]) -> Callable[..., Any]:
    async def run(*arguments: Any) -> Any:
        process = cast("ProcessLoop", asyncio.get_running_loop()).process
        step = current_step()
        execution = Execution(
            process.label, step.run_id, step.seq, step.attempt, name, process.clock.monotonic()
        )
        process.begin(execution)
        await asyncio.sleep(_duration(process.random))
        try:
            outcome = act(arguments)
            if inspect.isawaitable(outcome):
                outcome = await outcome
        finally:
            if process.is_alive:
                execution.effect_at = process.clock.monotonic()
        await asyncio.sleep(_duration(process.random))
        execution.ended_at = process.clock.monotonic()
        return outcome

    return run


def _forbidden(name: str) -> Callable[..., Any]:
    async def refuse(*_: Any) -> Any:
        process = cast("ProcessLoop", asyncio.get_running_loop()).process
        process.journal.forbidden.append(name)
        raise OutsideSimulationError(f"step {name!r} has neither a stub nor leave to run")

    return refuse


def _duration(random: Random) -> float:
    """Mostly milliseconds, now and then longer than most faults last."""
    chosen = random.random()
    if chosen < 0.9:
        return 0.02 * random.random()
    return random.random() * (0.5 if chosen < 0.98 else 4.0)
