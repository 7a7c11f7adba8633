"""The way of an operation through the hooks around it, and back."""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

from durable_worker.errors import InterceptorError
from durable_worker.replay.arguments import caller
from durable_worker.replay.context import WorkflowContext
from durable_worker.replay.definitions import WorkflowDefinition
from durable_worker.replay.interception import (
    AnyOperation,
    BodyExecution,
    BodyHook,
    ImmediateHook,
    Method,
    Operation,
    OperationHook,
    Proceed,
    RunHooks,
    WaitOperation,
)
from durable_worker.replay.journal import PROCEED
from durable_worker.replay.operations import Location
from durable_worker.replay.turn import Replay

C = TypeVar("C")
R = TypeVar("R")

Performed = Coroutine[Any, Any, Any]


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

    def start(self, method: str, name: str) -> Coroutine[Any, Any, Any]:
        """`method` and `name` are for the message about a forgotten `await`."""
        asked = self._operation
        return self._called(0, asked, (method, name, asked.asked_at))

    def _called(
        self, index: int, operation: AnyOperation, shown_as: tuple[str, str, Location]
    ) -> Coroutine[Any, Any, Any]:
        journal = self._replay.journal
        token = journal.next_token()
        coroutine = self._run(index, token, operation)
        journal.called(token, coroutine, *shown_as)
        return coroutine

    async def _run(self, index: int, token: int, operation: AnyOperation) -> Any:
        await self._replay.waiting.begin(token)
        if index == len(self._hooks):
            return await _stand_in(self._perform(operation), asked_at=operation.asked_at)

        def proceed(changed: Operation) -> Coroutine[Any, Any, Any]:
            checked = _same_kind(self._operation, changed)
            return self._called(index + 1, checked, (PROCEED, "", caller()))

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
    hooks: tuple[BodyHook, ...], definition: WorkflowDefinition, context: WorkflowContext
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


class Chain:
    """Takes the operations of one run through the hooks. `plain` is what performs values."""

    def __init__(self, replay: Replay, hooks: RunHooks, plain: WorkflowContext) -> None:
        self.replay = replay
        self.hooks = hooks
        self.plain = plain

    def at_once(
        self,
        method: Method,
        name: str,
        location: Location,
        perform: Callable[[Operation], R],
        *,
        input: object = None,
    ) -> R:
        asked = Operation(
            method=method, name=name, asked_at=location, context=self.plain, input=input
        )
        return run_at_once(self.hooks.immediate, asked, perform, asked_at=location)

    def awaited(
        self,
        operation: AnyOperation,
        perform: Callable[[AnyOperation], Performed],
    ) -> Performed:
        chain = Awaited(self.replay, self.hooks.operation, operation, perform)
        return chain.start(operation.method, operation.name)

    def wait_on_handle(
        self,
        name: str,
        limit: float | None,
        location: Location,
        perform: Callable[[float | None], Performed],
        *,
        method: Method,
        shown_as: str,
    ) -> Performed:
        asked = WaitOperation(
            method=method, name=name, asked_at=location, context=self.plain, timeout=limit
        )
        hooks = self.hooks.operation
        chain = Awaited(self.replay, hooks, asked, lambda changed: perform(changed.timeout))
        return chain.start(shown_as, "")
