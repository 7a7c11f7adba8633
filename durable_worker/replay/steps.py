"""How a body calls steps, on its own account or on that of a saga."""

import sys
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self, TypedDict, TypeVar, Unpack, overload

from msgspec import Struct

from durable_worker.protocol.payload import decoder_for, encode_payload
from durable_worker.protocol.tasks import WorkflowTask
from durable_worker.replay.arguments import Timeout, caller, checked_name, positive_limit
from durable_worker.replay.base import ContextBase, Operation
from durable_worker.replay.definitions import Directory, Retry, StepContextBase, retry_policy
from durable_worker.replay.operations import Location
from durable_worker.replay.performing import StepCall, call_step
from durable_worker.replay.saga import Compensation, Compensations
from durable_worker.replay.turn import Replay

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741
T = TypeVar("T")
C = TypeVar("C", bound=StepContextBase)

Retries = int | Retry | None


class StepOptions(TypedDict, total=False):
    retries: Retries
    timeout: Timeout
    partition: str | None


class _Known(Struct, frozen=True):
    """The call that one place in the body has made last, which holds on to the code of it."""

    step: Any
    options: tuple[Any, ...]
    call: StepCall


class StepCalls(ContextBase):
    """`compensations` is where a step that was called with `compensate` registers what undoes it"""

    def __init__(
        self,
        replay: Replay,
        task: WorkflowTask,
        directory: Directory,
        *,
        partition: str | None = None,
    ) -> None:
        super().__init__(replay, task, directory, partition=partition)
        self._compensations = Compensations(replay)
        self._known_calls: dict[tuple[int, int], _Known] = {}

    @overload
    def step(
        self,
        step: Callable[[I, C], Awaitable[O]] | Callable[[I], Awaitable[O]],
        input: I,
        /,
        *,
        compensate: Compensation[I, O] | None = None,
        **options: Unpack[StepOptions],
    ) -> Operation[O]: ...
    @overload
    def step(
        self,
        step: Callable[[C], Awaitable[O]] | Callable[[], Awaitable[O]],
        /,
        *,
        compensate: Compensation[None, O] | None = None,
        **options: Unpack[StepOptions],
    ) -> Operation[O]: ...
    @overload
    def step(
        self,
        step: Callable[[I, C], O] | Callable[[I], O],
        input: I,
        /,
        *,
        compensate: Compensation[I, O] | None = None,
        **options: Unpack[StepOptions],
    ) -> Operation[O]: ...
    @overload
    def step(
        self,
        step: Callable[[C], O] | Callable[[], O],
        /,
        *,
        compensate: Compensation[None, O] | None = None,
        **options: Unpack[StepOptions],
    ) -> Operation[O]: ...
    @overload
    def step(
        self,
        step: str,
        input: I,
        /,
        *,
        returns: type[T],
        compensate: Compensation[I, T] | None = None,
        **options: Unpack[StepOptions],
    ) -> Operation[T]: ...
    @overload
    def step(
        self,
        step: str,
        /,
        *,
        returns: type[T],
        compensate: Compensation[None, T] | None = None,
        **options: Unpack[StepOptions],
    ) -> Operation[T]: ...
    @overload
    def step(
        self,
        step: str,
        input: object = None,
        /,
        *,
        compensate: Compensation[Any, Any] | None = None,
        **options: Unpack[StepOptions],
    ) -> Operation[Any]: ...
    def step(
        self,
        step: Any,
        input: object = None,
        /,
        *,
        returns: Any = None,
        compensate: Compensation[Any, Any] | None = None,
        retries: Retries = None,
        timeout: Timeout = None,
        partition: str | None = None,
    ) -> Operation[Any]:
        """Run a step on whichever worker serves it, and return its output.

        `step` is a function registered on this worker, or the name of one that is served elsewhere;
        then `returns` says what to read the output as. `retries` and `timeout` replace what the
        decorator says: a number of further attempts after the first, or a `Retry`; how long
        (seconds if a number) to wait for the result of each attempt. `compensate` is the step that
        undoes this one: it is called with an `Undo`, once this one has succeeded, if the body (or
        the saga, for `saga.step`) fails after that.

        Raises `StepFailedError` after the last attempt (`StepTimeoutError` if that had no result in
        time), `PayloadError` if the input has no JSON form or the output does not fit,
        `RegistrationError` for an unregistered function.
        """
        frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
        # A body that goes round calls the same step from the same place again and again.
        known = self._known_calls.get(place := (id(frame.f_code), frame.f_lasti))
        if (
            known is not None
            and known.step is step
            and known.options == (returns, retries, timeout, partition)
        ):
            call = known.call
        else:
            location = (frame.f_code, frame.f_lineno)
            call = self._step_call(
                step, returns, location, retries=retries, timeout=timeout, partition=partition
            )
            self._known_calls[place] = _Known(step, (returns, retries, timeout, partition), call)
        journal = self._journal
        journal.tokens = token = journal.tokens + 1
        if compensate is None:
            coroutine = call_step(self._replay, token, call, input)
        else:
            self._refuse_if_over()
            undo = self._step_call(compensate, None, call.location)
            coroutine = self._compensations.watch(token, call, input, undo)
        journal.unstarted[token] = (coroutine, "step", call.name, call.location)
        return coroutine

    def _refuse_if_over(self) -> None:
        """Raises where nothing would ever be undone."""

    def _step_call(
        self,
        step: Any,
        returns: Any,
        location: Location,
        *,
        retries: Retries = None,
        timeout: Timeout = None,
        partition: str | None = None,
    ) -> StepCall:
        retry = retry_policy(retries)
        if isinstance(step, str):
            name, decoder, limit = checked_name(step, "step"), decoder_for(returns), None
        else:
            definition = self._step_definition(step)
            name, decoder, limit = definition.name, definition.output_decoder, definition.limit
            retry = retry or definition.retry
        if timeout is not None:
            limit = positive_limit(timeout, f"step {name!r}")
        partition = checked_name(partition, "partition") if partition else self._partition
        return StepCall(name, partition, retry, limit, decoder, location)


class Saga(StepCalls):
    """A scope whose completed steps are undone, latest first, if it is left by an exception.

    That includes the cancellation of the task that is in it, by an `asyncio.timeout` around it or a
    sibling's failure. The exception goes on, with a note for each compensation that failed; they
    are steps with their own retry policy, and one that fails does not stop the others. A scope that
    is left without an exception undoes nothing any more.

    Steps that are still running when the scope fails, their waits having been cancelled, are waited
    for and undone as well: give a step that may never answer a `timeout`.
    """

    _is_entered = False

    async def __aenter__(self) -> Self:
        self._is_entered = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None:
        self._is_entered = False
        if error is None:
            self._compensations.forget()
        else:
            await self._compensations.undo(error)

    @overload
    def add(self, undo: Callable[[I, C], Any] | Callable[[I], Any], value: I, /) -> None: ...
    @overload
    def add(self, undo: str, value: object = None, /) -> None: ...
    def add(self, undo: Any, value: object = None, /) -> None:
        """Call the step `undo` with `value`, as it is, if the scope fails.

        Raises `PayloadError` if `value` has no JSON form.
        """
        self._refuse_if_over()
        call = self._step_call(undo, None, caller())
        payload = encode_payload(value, what=f"the input of step {call.name!r}")
        self._compensations.add(call, payload)

    def _refuse_if_over(self) -> None:
        if not self._is_entered:
            raise RuntimeError(
                "what this saga does would not be undone: call it inside its `async with`"
            )
