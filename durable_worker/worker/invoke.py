"""Run one attempt of a step and turn whatever happens into a result."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.to_thread
from anyio import CapacityLimiter
from msgspec import UNSET

from durable_worker.protocol.base import Payload
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.payload import encode_payload
from durable_worker.replay.definitions import StepDefinition
from durable_worker.replay.failures import failure_of
from durable_worker.worker.step_context import StepContext, enter_step

if TYPE_CHECKING:
    from durable_worker.worker.interception import Interception

Returned = Payload | Failure


def outcome_of(returned: Returned) -> tuple[Payload, Failure | None]:
    """As output and error of a message."""
    return (UNSET, returned) if isinstance(returned, Failure) else (returned, None)


async def invoke(
    definition: StepDefinition,
    payload: Payload,
    context: StepContext,
    *,
    threads: CapacityLimiter,
    is_given_up: Callable[[], bool],
    interception: "Interception | None" = None,
) -> Returned:
    """The encoded output of the step, or its failure, whatever the step raises.

    Raises only `CancelledError`, and only if `is_given_up` says that the worker wants it so; a step
    that cancels itself has failed.
    """
    enter_step(context)
    try:
        arguments = definition.arguments(payload, context)
        if interception is not None and interception.step:
            call = partial(_call, definition, threads)
            output = await interception.run_step(definition, arguments, context, call)
        elif definition.is_async:
            output = await definition.fn(*arguments)
        else:
            output = await _in_thread(definition, arguments, threads)
        return encode_payload(output, what=f"the output of step {definition.name!r}")
    except (asyncio.CancelledError, GeneratorExit) as error:
        if isinstance(error, GeneratorExit) or is_given_up():
            raise
        return failure_of(error)
    except BaseException as error:  # SystemExit, KeyboardInterrupt and the like are failures too
        return failure_of(error, retryable=False if _is_ruled_out(definition, error) else None)


def _call(
    definition: StepDefinition, threads: CapacityLimiter, arguments: tuple[Any, ...]
) -> Awaitable[Any]:
    if definition.is_async:
        return cast("Awaitable[Any]", definition.fn(*arguments))
    return _in_thread(definition, arguments, threads)


async def _in_thread(
    definition: StepDefinition, arguments: tuple[Any, ...], threads: CapacityLimiter
) -> Any:
    output = await anyio.to_thread.run_sync(
        definition.fn, *arguments, limiter=threads, abandon_on_cancel=True
    )
    # A plain function may still hand out an awaitable (a partial, a callable object).
    return await output if asyncio.iscoroutine(output) else output


def _is_ruled_out(definition: StepDefinition, error: BaseException) -> bool:
    return definition.retry is not None and definition.retry.rules_out(error)
