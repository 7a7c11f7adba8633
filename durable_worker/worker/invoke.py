"""The ways in which the function of a step is called, and what comes of it."""

import asyncio
from collections.abc import Awaitable
from typing import Any, cast

import anyio
import anyio.to_thread
from anyio import CapacityLimiter
from msgspec import UNSET

from durable_worker.protocol.base import Payload
from durable_worker.protocol.failure import Failure
from durable_worker.replay.definitions import StepDefinition

Returned = Payload | Failure


def outcome_of(returned: Returned) -> tuple[Payload, Failure | None]:
    """As output and error of a message."""
    return (UNSET, returned) if isinstance(returned, Failure) else (returned, None)


def called(
    definition: StepDefinition, threads: CapacityLimiter, arguments: tuple[Any, ...]
) -> Awaitable[Any]:
    if definition.is_async:
        return cast("Awaitable[Any]", definition.fn(*arguments))
    return in_thread(definition, arguments, threads)


async def in_thread(
    definition: StepDefinition, arguments: tuple[Any, ...], threads: CapacityLimiter
) -> Any:
    output = await anyio.to_thread.run_sync(
        definition.fn, *arguments, limiter=threads, abandon_on_cancel=True
    )
    # A plain function may still hand out an awaitable (a partial, a callable object).
    return await output if asyncio.iscoroutine(output) else output


def is_ruled_out(definition: StepDefinition, error: BaseException) -> bool:
    return definition.retry is not None and definition.retry.rules_out(error)
