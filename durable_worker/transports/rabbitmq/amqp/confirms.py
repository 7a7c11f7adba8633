"""Which published messages the broker has still to answer for."""

from collections.abc import Iterator
from typing import Generic, TypeVar

from msgspec import Struct

W = TypeVar("W")


class _Publish(Struct, Generic[W], gc=False):
    waiter: W
    exchange: str
    routing_key: str
    properties: bytes
    body: bytes
    is_returned: bool = False


class Confirms(Generic[W]):
    """Numbers publishes as the broker does, from 1 on, and keeps a waiter for each."""

    def __init__(self) -> None:
        self._open: dict[int, _Publish[W]] = {}
        self._last = 0
        self.lowest = 1

    def __len__(self) -> int:
        return len(self._open)

    def published(
        self, waiter: W, exchange: str, routing_key: str, properties: bytes, body: bytes
    ) -> None:
        self._last += 1
        self._open[self._last] = _Publish(waiter, exchange, routing_key, properties, body)

    def returned(self, exchange: str, routing_key: str, message_id: bytes, body: bytes) -> None:
        """The broker has sent a message back. Of messages that are alike in all of this, it does
        not matter which one that was."""
        for publish in self._open.values():
            if (
                not publish.is_returned
                and publish.routing_key == routing_key
                and publish.exchange == exchange
                and publish.body == body
                and message_id in publish.properties
            ):
                publish.is_returned = True
                return

    def confirmed(self, tag: int, *, multiple: bool) -> Iterator[tuple[W, bool]]:
        """The waiters of one message, or of all up to it that are still open, and whether it came
        back. Iterate to the end."""
        if multiple:
            lowest = self.lowest
            # Beyond the last one there is nothing, whatever the broker says.
            self.lowest = max(lowest, min(tag, self._last) + 1)
            for each in range(lowest, self.lowest):
                publish = self._open.pop(each, None)
                if publish is not None:
                    yield publish.waiter, publish.is_returned
            return
        publish = self._open.pop(tag, None)
        if publish is None:
            return
        while self.lowest <= self._last and self.lowest not in self._open:
            self.lowest += 1
        yield publish.waiter, publish.is_returned

    def given_up(self) -> list[W]:
        """All that are left; none is any more."""
        left = [publish.waiter for publish in self._open.values()]
        self._open.clear()
        return left
