"""How many messages of one queue may be out, when some of them have been moved elsewhere."""

import asyncio
from collections.abc import Callable

PATIENCE_SECONDS = 0.25
"""How long little free room stays unused, so that the consumer is not renewed for every message."""


class Window:
    """Counts what a consumer has out, and when the consumer has to be replaced by another one.

    A broker that gets an acknowledgement fills the consumer's prefetch up again. A message that was
    only moved is still being worked on, so a consumer must have ended before such a message of its
    is acknowledged; the next one asks for the room that is left. Consumers are counted by `turn`.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._out = 0
        self._granted = 0
        self._used = 0
        self._is_move_due = False
        self._turned = asyncio.Event()
        self._waking: asyncio.TimerHandle | None = None
        self._wake: Callable[[], None] = lambda: None
        self.turn = 0

    @property
    def room(self) -> int:
        """How many more may be out."""
        return max(self._size - self._out, 0)

    @property
    def has_credit(self) -> bool:
        """Whether the present consumer may take more."""
        return self._used < self._granted

    @property
    def is_turn_due(self) -> bool:
        return self._is_move_due or self._unused > 0

    def on_due(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def granted(self, room: int) -> None:
        """A consumer of the present turn may take so many."""
        self._granted = room

    def end_turn(self) -> None:
        """The consumer takes nothing more. What it took may be moved from now on."""
        self.turn += 1
        self._granted = self._used = 0
        self._is_move_due = False
        self._turned.set()
        self._turned = asyncio.Event()
        if self._waking is not None:
            self._waking.cancel()
            self._waking = None

    def took(self) -> int:
        """A message came; the turn that it belongs to."""
        self._out += 1
        self._used += 1
        return self.turn

    def left(self, turn: int) -> None:
        """A message of that turn was answered, or is lost with its connection."""
        if turn == self.turn:
            # The broker fills its room up again: what stays unused is as it was.
            self._used -= 1
            self._out -= 1
        else:
            self.ended()

    def ended(self) -> None:
        """A message that was moved is out no more."""
        self._out -= 1
        if (unused := self._unused) <= 0:
            return
        if unused >= max(self._size // 4, 1):
            self._wake()
        elif self._waking is None:
            loop = asyncio.get_running_loop()
            self._waking = loop.call_later(PATIENCE_SECONDS, self._wake_late)

    async def movable(self, turn: int) -> None:
        """Wait until a message of that turn can be acknowledged without another in its place."""
        if turn == self.turn:
            self._is_move_due = True
            self._wake()
            await self._turned.wait()

    def _wake_late(self) -> None:
        self._waking = None
        self._wake()

    @property
    def _unused(self) -> int:
        """What may be out but will not come: no consumer has asked for it."""
        return self._size - self._out - (self._granted - self._used)
