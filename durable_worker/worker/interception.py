"""The one extension point of a worker: code around steps, turns, bodies and what bodies ask for."""

import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from msgspec import Struct

from durable_worker.errors import RegistrationError
from durable_worker.protocol.commands import WorkflowDecision
from durable_worker.protocol.tasks import WorkflowTask
from durable_worker.replay.chains import through
from durable_worker.replay.definitions import StepDefinition
from durable_worker.replay.interception import (
    BodyExecution,
    Operation,
    Proceed,
    RunHooks,
)
from durable_worker.worker.step_context import StepContext


class StepExecution(Struct, frozen=True):
    """One attempt at one step on this worker. `input` is the decoded input; None if it takes none.

    `context` says which step of which run it is (`name`, `run_id`, `attempt`).
    """

    context: StepContext
    input: Any

    def replace(self, *, input: object) -> "StepExecution":
        """The same attempt with another input."""
        return StepExecution(self.context, input)


class TurnExecution(Struct, frozen=True):
    """One turn of a run on this worker."""

    task: WorkflowTask

    @property
    def run_id(self) -> str:
        return self.task.run_id

    @property
    def workflow(self) -> str:
        return self.task.workflow

    @property
    def version(self) -> str:
        return self.task.workflow_version

    def replace(self, *, task: WorkflowTask) -> "TurnExecution":
        """The same turn for another task."""
        return TurnExecution(task)


class Interceptor:
    """Derive from this, override what you need, and hand it to `Worker(interceptors=[...])`.

    Each hook is given a call and `proceed`, which goes on with it: to the interceptor after this
    one in the list, and in the end to what is wrapped. A hook may go on with a changed call
    (`call.replace(...)`), go on several times or not at all, change what comes back, and turn
    errors into others or into values.

    `step` and `turn` run outside of runs: clock, network and files are theirs. `body`, `operation`
    and `immediate` run inside a run and are replayed with it: they must be deterministic, may use
    `call.context`, and keep nothing on `self` that decides what they do. A change to them is a
    change to the body of every run that has begun (`call.context.patched` tells old from new).

    One instance serves all runs and steps of a worker, many at a time.
    """

    async def step(self, call: StepExecution, proceed: Proceed[StepExecution, Any], /) -> Any:
        """Around each attempt at a step or local step, between its decoded input and its output.

        What it raises fails the attempt, as if the step had raised it.
        """
        return await proceed(call)

    async def turn(
        self, call: TurnExecution, proceed: Proceed[TurnExecution, WorkflowDecision], /
    ) -> WorkflowDecision:
        """Around each turn of a run, before its decision is sent.

        What it raises is a defect of the worker, not of the run: it is logged, and the task goes
        back to its queue.
        """
        return await proceed(call)

    async def body(self, call: BodyExecution, proceed: Proceed[BodyExecution, Any], /) -> Any:
        """Around the whole body of a run; compensations come after it.

        What it raises fails the run, as if the body had raised it.
        """
        return await proceed(call)

    async def operation(self, call: Operation, proceed: Proceed[Operation, Any], /) -> Any:
        """Around each operation that a body awaits, from when it is awaited.

        What it raises is raised in the body. To `proceed` again is another operation.
        """
        return await proceed(call)

    def immediate(self, call: Operation, proceed: Callable[[Operation], Any], /) -> Any:
        """Around each operation that takes effect at once: a plain `def`, also here.

        These are `now`, `uuid`, `random`, `side_effect`, `set_event`, `patched`, `webhook`, `task`,
        `start_child` and `on_signal`. What it raises is raised in the body.
        """
        return proceed(call)


StepHook = Callable[[StepExecution, Proceed[StepExecution, Any]], Awaitable[Any]]
TurnHook = Callable[
    [TurnExecution, Proceed[TurnExecution, WorkflowDecision]], Awaitable[WorkflowDecision]
]
Decide = Callable[[WorkflowTask], Awaitable[WorkflowDecision]]


class Interception(Struct, frozen=True):
    """The hooks that a worker's interceptors override, outermost first."""

    step: tuple[StepHook, ...]
    turn: tuple[TurnHook, ...]
    run: RunHooks

    async def run_step(
        self,
        definition: StepDefinition,
        arguments: tuple[Any, ...],
        context: StepContext,
        call: Callable[[tuple[Any, ...]], Awaitable[Any]],
    ) -> Any:
        """The output of a step that `call` calls with its arguments, taken through the hooks."""

        async def perform(execution: StepExecution) -> Any:
            return await call(definition.with_input(arguments, execution.input))

        execution = StepExecution(context, definition.input_among(arguments))
        return await through(self.step, perform)(execution)

    def around_turns(self, decide: Decide) -> Decide:
        """`decide` with the hooks around it."""
        if not self.turn:
            return decide

        async def proceed(execution: TurnExecution) -> WorkflowDecision:
            return await decide(execution.task)

        chain = through(self.turn, proceed)

        async def decide_through(task: WorkflowTask) -> WorkflowDecision:
            return await chain(TurnExecution(task))

        return decide_through


def interception_of(interceptors: Sequence[Interceptor]) -> Interception:
    """Raises `RegistrationError` for what is no interceptor, or a hook of the wrong kind."""
    for each in interceptors:
        _check(each)
    return Interception(
        step=tuple(each.step for each in interceptors if _overrides(each, "step")),
        turn=tuple(each.turn for each in interceptors if _overrides(each, "turn")),
        run=RunHooks(
            body=tuple(each.body for each in interceptors if _overrides(each, "body")),
            operation=tuple(
                each.operation for each in interceptors if _overrides(each, "operation")
            ),
            immediate=tuple(
                each.immediate for each in interceptors if _overrides(each, "immediate")
            ),
        ),
    )


def _overrides(interceptor: Interceptor, hook: str) -> bool:
    return getattr(type(interceptor), hook) is not getattr(Interceptor, hook)


def _check(interceptor: object) -> None:
    if not isinstance(interceptor, Interceptor):
        hint = (
            f"make one: write `{interceptor.__qualname__}()`"
            if isinstance(interceptor, type)
            else ("derive its class from durable_worker.interceptors.Interceptor")
        )
        raise RegistrationError(f"{interceptor!r} is not an interceptor; {hint}")
    kind = type(interceptor)
    for hook in ("step", "turn", "body", "operation"):
        if not inspect.iscoroutinefunction(inspect.unwrap(getattr(kind, hook))):
            raise RegistrationError(f"{kind.__qualname__}.{hook} must be an `async def`")
    if inspect.iscoroutinefunction(inspect.unwrap(kind.immediate)):
        raise RegistrationError(
            f"{kind.__qualname__}.immediate must be a plain `def`: what it wraps is not awaited"
        )
