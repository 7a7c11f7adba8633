"""What interceptors see of a run, and the chains that lead from a body through them.

These hooks run on the body's own loop and are replayed with it: what they do must be deterministic,
and what they ask `context` for is numbered like what the body asks for.
"""

from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from durable_worker.errors import InterceptorError
from durable_worker.replay.arguments import Timeout, caller, checked_name, limit_of, positive_limit
from durable_worker.replay.definitions import Retry, WorkflowDefinition, retry_policy
from durable_worker.replay.journal import PROCEED
from durable_worker.replay.operations import Location, place_of
from durable_worker.replay.turn import Replay

if TYPE_CHECKING:
    from durable_worker.replay.context import WorkflowContext

C = TypeVar("C")
R = TypeVar("R")
AnyOperation = TypeVar("AnyOperation", bound="Operation")

Proceed = Callable[[C], Awaitable[R]]
"""Runs the rest of the chain with what it is given, and returns what comes out of it."""

Method = Literal[
    "step",
    "saga.step",
    "compensation",
    "local_step",
    "child",
    "start_child.result",
    "sleep",
    "wait_signal",
    "wait_update",
    "wait_event",
    "on_signal.wait",
    "breakpoint",
    "webhook.wait",
    "task.wait",
    "now",
    "uuid",
    "random",
    "side_effect",
    "set_event",
    "patched",
    "webhook",
    "task",
    "start_child",
    "on_signal",
]

_NAMED: frozenset[Method] = frozenset(
    {
        *("step", "saga.step", "compensation", "child", "start_child", "set_event", "patched"),
        *("wait_signal", "wait_update", "wait_event", "on_signal", "on_signal.wait", "task"),
    }
)
_WITH_INPUT: frozenset[Method] = frozenset(
    {
        *("step", "saga.step", "compensation", "local_step", "child", "start_child"),
        *("set_event", "wait_event"),
    }
)


class Operation(Struct, frozen=True, kw_only=True):
    """One operation that a body asks for; `replace` makes a changed one to proceed with.

    `method` is the method of the context, `name` the step, workflow, signal, event, key, patch or
    token that it is about ("" if none), `input` what a step or child is given, the value of
    `set_event` or the `match` of `wait_event`. The methods with a dot are waits for what another
    one returned; "compensation" is a step that undoes another one.

    `context` is the run's context for the interceptor's own use: what is asked for there is not
    intercepted.
    """

    method: Method
    name: str
    asked_at: Location
    context: "WorkflowContext"
    input: object = None

    @property
    def run_id(self) -> str:
        return self.context.run_id

    @property
    def workflow(self) -> str:
        return self.context.workflow

    @property
    def version(self) -> str:
        return self.context.version

    @property
    def is_replaying(self) -> bool:
        """Whether the body now goes over what it did in an earlier turn (see the context's)."""
        return self.context.is_replaying

    @property
    def location(self) -> str:
        """`file:line` of the body that asks."""
        return place_of(self.asked_at)

    def replace(self, *, name: str | UnsetType = UNSET, input: object = UNSET) -> Self:
        """The same operation with another `name` or `input`.

        Raises `InterceptorError` for what an operation of this method does not have.
        """
        return self._replaced(name=name, input=input)

    def _replaced(self, **changes: object) -> Self:
        given = {key: value for key, value in changes.items() if value is not UNSET}
        if "name" in given:
            if self.method not in _NAMED:
                raise InterceptorError(f"{self} has no name that could be replaced")
            checked_name(given["name"], self.method)
        if "input" in given and self.method not in _WITH_INPUT:
            raise InterceptorError(f"{self} has no input that could be replaced")
        return replace(self, **given)

    def __str__(self) -> str:
        if self.method == "compensation":
            return f"the compensation {self.name!r}"
        return f"ctx.{self.method}({self.name!r})" if self.name else f"ctx.{self.method}()"


class StepOperation(Operation, frozen=True, kw_only=True):
    """`ctx.step`, `saga.step`, or a compensation, with what the decorator and the call say.

    `timeout` in seconds for each attempt; None: for ever.
    """

    retries: Retry | None
    timeout: float | None
    partition: str

    def replace(
        self,
        *,
        name: str | UnsetType = UNSET,
        input: object = UNSET,
        retries: int | Retry | UnsetType | None = UNSET,
        timeout: Timeout | UnsetType = UNSET,
        partition: str | UnsetType = UNSET,
    ) -> Self:
        """The same call, changed. `retries` and `timeout` take what `ctx.step` takes.

        Raises `RegistrationError` for a name, partition or timeout that cannot be.
        """
        if not isinstance(retries, UnsetType):
            retries = retry_policy(retries)
        if not isinstance(timeout, UnsetType):
            timeout = positive_limit(timeout, str(self))
        if not isinstance(partition, UnsetType):
            checked_name(partition, "partition")
        return self._replaced(
            name=name, input=input, retries=retries, timeout=timeout, partition=partition
        )


class WaitOperation(Operation, frozen=True, kw_only=True):
    """A wait for something from outside. `timeout` in seconds; None: for ever."""

    timeout: float | None = None

    def replace(
        self,
        *,
        name: str | UnsetType = UNSET,
        input: object = UNSET,
        timeout: Timeout | UnsetType = UNSET,
    ) -> Self:
        """The same wait, changed. `timeout` takes what the method takes."""
        if not isinstance(timeout, UnsetType):
            timeout = limit_of(timeout)
        return self._replaced(name=name, input=input, timeout=timeout)


class SleepOperation(Operation, frozen=True, kw_only=True):
    """`ctx.sleep` and `ctx.sleep_until`: how many seconds from now; 0 or less: none."""

    seconds: float

    def replace(
        self,
        *,
        name: str | UnsetType = UNSET,
        input: object = UNSET,
        seconds: float | UnsetType = UNSET,
    ) -> Self:
        """The same sleep for other `seconds`."""
        return self._replaced(name=name, input=input, seconds=seconds)

    def __str__(self) -> str:
        return f"ctx.sleep({self.seconds:g})"


class BodyExecution(Struct, frozen=True, kw_only=True):
    """One execution of a workflow body. `input` is what it is given; None if it takes none.

    `context` is the run's context for the interceptor's own use (not intercepted).
    """

    context: "WorkflowContext"
    input: Any = None

    def replace(self, *, input: object) -> "BodyExecution":
        """The same execution with another input."""
        return BodyExecution(context=self.context, input=input)


BodyHook = Callable[[BodyExecution, Proceed[BodyExecution, Any]], Awaitable[Any]]
OperationHook = Callable[[Operation, Proceed[Operation, Any]], Awaitable[Any]]
ImmediateHook = Callable[[Operation, Callable[[Operation], Any]], Any]


class RunHooks(Struct, frozen=True):
    """The hooks that run inside of runs, outermost first."""

    body: tuple[BodyHook, ...] = ()
    operation: tuple[OperationHook, ...] = ()
    immediate: tuple[ImmediateHook, ...] = ()


class Awaited(Generic[AnyOperation]):
    """One operation on its way through the hooks around awaited operations.

    Each link is a coroutine that the journal knows of, so a hook that forgets to await `proceed`
    is named like a body that forgets to await an operation.
    """

    def __init__(
        self,
        replay: Replay,
        hooks: tuple[OperationHook, ...],
        operation: AnyOperation,
        perform: Callable[[AnyOperation], Coroutine[Any, Any, Any]],
    ) -> None:
        self._replay = replay
        self._hooks = hooks
        self._operation = operation
        self._perform = perform

    def start(self, shown_as: str) -> Coroutine[Any, Any, Any]:
        """`shown_as` names the method where its `await` was forgotten."""
        asked = self._operation
        return self._called(0, asked, shown_as, asked.asked_at)

    def _called(
        self, index: int, operation: AnyOperation, method: str, location: Location
    ) -> Coroutine[Any, Any, Any]:
        journal = self._replay.journal
        token = journal.next_token()
        coroutine = self._run(index, token, operation)
        journal.called(token, coroutine, method, operation.name, location)
        return coroutine

    async def _run(self, index: int, token: int, operation: AnyOperation) -> Any:
        await self._replay.waiting.begin(token)
        if index == len(self._hooks):
            return await _stand_in(self._perform(operation), asked_at=operation.asked_at)

        def proceed(changed: Operation) -> Coroutine[Any, Any, Any]:
            checked = _same_kind(self._operation, changed)
            return self._called(index + 1, checked, PROCEED, caller())

        return await self._hooks[index](operation, proceed)


async def _stand_in(operation: Awaitable[R], *, asked_at: Location) -> R:  # noqa: ARG001
    # `caller_location` takes `asked_at` of this frame for the line that asks: see there.
    return await operation


def run_at_once(
    hooks: tuple[ImmediateHook, ...],
    operation: Operation,
    perform: Callable[[Operation], R],
    *,
    asked_at: Location,
) -> R:
    """Take an operation that takes effect at once through its hooks.

    `asked_at` of the innermost frame of this function is what `caller_location` finds.
    """
    if not hooks:
        return perform(operation)

    def proceed(changed: Operation) -> R:
        checked = _same_kind(operation, changed)
        return run_at_once(hooks[1:], checked, perform, asked_at=asked_at)

    result: R = hooks[0](operation, proceed)
    return result


def body_through(
    hooks: tuple[BodyHook, ...], definition: WorkflowDefinition, context: "WorkflowContext"
) -> Callable[..., Awaitable[Any]]:
    """What to call in place of the body. `context` is for the hooks."""

    async def run(*arguments: Any) -> Any:
        async def body(execution: BodyExecution) -> Any:
            return await definition.fn(*definition.with_input(arguments, execution.input))

        execution = BodyExecution(context=context, input=definition.input_among(arguments))
        return await through(hooks, body)(execution)

    return run


def through(
    hooks: tuple[Callable[[C, Proceed[C, R]], Awaitable[R]], ...], innermost: Proceed[C, R]
) -> Proceed[C, R]:
    """The chain of all hooks, the first outermost, around `innermost`."""
    proceed = innermost
    for hook in reversed(hooks):
        proceed = _linked(hook, proceed)
    return proceed


def _linked(hook: Callable[[C, Proceed[C, R]], Awaitable[R]], rest: Proceed[C, R]) -> Proceed[C, R]:
    return lambda call: hook(call, rest)


def _same_kind(asked: AnyOperation, changed: Operation) -> AnyOperation:
    if not isinstance(changed, type(asked)) or changed.method != asked.method:
        raise InterceptorError(
            f"an interceptor proceeded with {changed} in place of {asked}; pass on the operation "
            f"itself, or what its `replace` returned"
        )
    return changed
