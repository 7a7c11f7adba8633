"""What interceptors see of a run.

These hooks run on the body's own loop and are replayed with it: what they do must be deterministic,
and what they ask `context` for is numbered like what the body asks for.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from durable_worker.errors import InterceptorError
from durable_worker.replay.arguments import Timeout, checked_name, limit_of, positive_limit
from durable_worker.replay.definitions import Retry, retry_policy
from durable_worker.replay.operations import Location, place_of

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
    "on_query",
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
        "on_query",
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
