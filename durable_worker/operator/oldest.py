"""The oldest row that a transaction in the making has not used up."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

_FIRST_PAGE = 8

T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)


class Read(Protocol[R_co]):
    def __call__(
        self, namespace: str, name: str, /, *, limit: int
    ) -> Awaitable[Sequence[R_co]]: ...


async def oldest(read: Read[T], namespace: str, name: str, fits: Callable[[T], bool]) -> T | None:
    """The first that fits of what a store reads in order; most often there are few."""
    limit = _FIRST_PAGE
    while True:
        known = await read(namespace, name, limit=limit)
        found = next((each for each in known if fits(each)), None)
        if found is not None or len(known) < limit:
            return found
        limit *= 4
