"""What a simulation takes over of its host process, and gives back."""

import sys
from asyncio import events
from collections import UserDict
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, cast

import structlog
from anyio._backends import _asyncio as anyio_on_asyncio

Event = structlog.typing.EventDict


class Defects:
    """Log lines that tell of a defect of ours: a handler that raised."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def __call__(self, _: Any, method: str, event: Event) -> Event:
        if getattr(events._get_running_loop(), "is_dead", False):
            raise structlog.DropEvent  # what a killed process would have said
        if method in ("exception", "critical") or event.get("exc_info"):
            told = {key: value for key, value in event.items() if key != "exc_info"}
            self.found.append(f"{told} {_error_in(event)}")
        raise structlog.DropEvent


def _error_in(event: Event) -> str:
    error = event.get("exc_info")
    if error is True or error is None:
        error = sys.exc_info()[1]
    return repr(error)


class _Ordered(UserDict[Any, None]):
    """A set that remembers the order in which it was filled."""

    def __init__(self) -> None:
        self.data: dict[Any, None] = {}

    def add(self, element: Any) -> None:
        self.data[element] = None

    def discard(self, element: Any) -> None:
        self.data.pop(element, None)

    def remove(self, element: Any) -> None:
        del self.data[element]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.data)


@contextmanager
def taken_over(defects: Defects) -> Generator[None]:
    """Logs go to `defects` alone, and the order in which anyio cancels nested scopes, which it
    keeps in sets of addresses, is that of their creation."""
    logging = structlog.get_config()
    scope = cast("Any", anyio_on_asyncio.CancelScope)
    create = scope.__init__

    def create_in_order(self: Any, *given: Any, **named: Any) -> None:
        create(self, *given, **named)
        self._child_scopes = _Ordered()

    structlog.configure(
        processors=[defects],
        wrapper_class=structlog.make_filtering_bound_logger(40),
        cache_logger_on_first_use=False,
    )
    scope.__init__ = create_in_order
    try:
        yield
    finally:
        scope.__init__ = create
        structlog.configure(**logging)
