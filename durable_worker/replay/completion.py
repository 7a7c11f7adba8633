"""Make `asyncio.as_completed` start coroutines in the order in which they were given.

It puts them into a set first, and a coroutine hashes by its address: which one starts first, and
so gets the lower seq, would differ from one process to the next. The loop therefore looks, when a
task is made on behalf of `as_completed`, at the list that `as_completed` was given.

Likewise for the futures that `gather` returns, where a body puts them into a set.
"""

import asyncio
import sys
from collections.abc import Coroutine
from types import CodeType
from typing import Any

from durable_worker.errors import UnsupportedInWorkflowError


def _number_gathering_futures() -> None:
    """What `gather` returns hashes by its address too; in a body it gets a number instead."""
    kind: Any = getattr(asyncio.tasks, "_GatheringFuture", None)
    if kind is None:
        return

    def number(self: Any) -> int:
        next_number = getattr(self.get_loop(), "next_number", None)
        if next_number is None:
            return object.__hash__(self)
        if not hasattr(self, "durable_number"):
            self.durable_number = next_number()
        return int(self.durable_number)

    kind.__hash__ = number


_number_gathering_futures()


def _codes() -> tuple[frozenset[CodeType], frozenset[CodeType]]:
    makers: list[Any] = [asyncio.ensure_future, getattr(asyncio.tasks, "_ensure_future", None)]
    iterator = getattr(asyncio.tasks, "_AsCompletedIterator", None)
    users: list[Any] = [asyncio.as_completed, getattr(iterator, "__init__", None)]
    return (
        frozenset(maker.__code__ for maker in makers if maker is not None),
        frozenset(user.__code__ for user in users if hasattr(user, "__code__")),
    )


_ENSURE_FUTURE, _AS_COMPLETED = _codes()
_ARGUMENTS = ("fs", "aws")


def siblings_in_order(coroutine: Coroutine[Any, Any, Any]) -> list[Coroutine[Any, Any, Any]] | None:
    """All coroutines that the calling `as_completed` was given, in order; None for other callers.

    Raises `UnsupportedInWorkflowError` if it was given an iterator, which has no order any more.
    """
    frame = sys._getframe(2)  # pyright: ignore[reportPrivateUsage]
    if frame.f_code not in _ENSURE_FUTURE:
        return None
    while frame.f_back is not None and frame.f_code in _ENSURE_FUTURE:
        frame = frame.f_back
    if frame.f_code.co_name == "<setcomp>" and frame.f_back is not None:
        frame = frame.f_back
    if frame.f_code not in _AS_COMPLETED:
        return None
    given = next((frame.f_locals[name] for name in _ARGUMENTS if name in frame.f_locals), ())
    siblings = [each for each in given if asyncio.iscoroutine(each)]
    if coroutine not in siblings or isinstance(given, (set, frozenset)):
        raise UnsupportedInWorkflowError(
            "asyncio.as_completed in a workflow body needs a list or tuple: the order of an "
            "iterator or a set of coroutines is not the same on a replay"
        )
    return list(dict.fromkeys(siblings))
