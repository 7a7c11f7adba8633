"""Undo what has been done: compensating steps, run in reverse when a scope or the body fails."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct, UnsetType

from durable_worker.protocol.base import Payload
from durable_worker.replay.continuing import continuation_in
from durable_worker.replay.failures import message_of
from durable_worker.replay.performing import StepCall, call_step
from durable_worker.replay.turn import Replay

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741


class Undo(Struct, Generic[I, O], frozen=True):
    """Input of a compensating step: what the step to be undone was given, and what it returned."""

    input: I
    output: O


Compensation = Callable[[Undo[I, O], Any], Any] | Callable[[Undo[I, O]], Any] | str
"""A step of this worker that takes an `Undo`, or the name of a step that is served elsewhere."""


class Compensations:
    """What is to be undone if a scope fails. The latest is undone first, one at a time."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay
        self.call_undo: Callable[[StepCall, Payload], Coroutine[Any, Any, Any]] | None = None
        """In place of the plain call."""
        self._open: list[tuple[StepCall, Payload]] = []
        self._running = 0
        self._settled: asyncio.Event | None = None

    def add(self, call: StepCall, value: Payload) -> None:
        self._open.append((call, value))

    def forget(self) -> None:
        self._open.clear()

    async def watch(self, token: int, call: StepCall, value: object, undo: StepCall) -> Any:
        """Call a step that `undo` undoes.

        The call goes on when the wait for it is cancelled: it may take effect, and must then be
        undone like any other.
        """
        self._replay.journal.started(token)
        undoing = _Undoing(self, undo)
        calling = asyncio.ensure_future(self._call(token, call, value, undoing))
        try:
            return await asyncio.shield(calling)
        except asyncio.CancelledError:
            undoing.is_wanted = False
            raise

    async def _call(self, token: int, call: StepCall, value: object, undoing: "_Undoing") -> Any:
        self._running += 1
        try:
            return await call_step(self._replay, token, call, value, undoing)
        finally:
            self._running -= 1
            if self._settled is not None:
                self._settled.set()

    async def undo(self, error: BaseException) -> None:
        """Run them all on account of `error`, which gets a note for each that fails.

        What has begun is carried through, however often the task that waits for it is cancelled.
        """
        journal = self._replay.journal
        if journal.is_sealed or isinstance(error, GeneratorExit):
            return
        if continuation_in(error) is not None:
            self.forget()
            return
        if not self._open and not self._running:
            return
        undoing = asyncio.ensure_future(self._undo_all())
        while not undoing.done():
            try:
                await asyncio.shield(undoing)
            except asyncio.CancelledError:
                if journal.is_sealed:
                    raise
        for note in undoing.result():
            error.add_note(note)

    async def _undo_all(self) -> list[str]:
        """Steps whose results have not come yet are undone as they come."""
        notes: list[str] = []
        call_undo = self.call_undo or self._call_undo
        self._settled = settled = self._settled or asyncio.Event()
        while self._open or self._running:
            if not self._open:
                settled.clear()
                await settled.wait()
                continue
            call, value = self._open.pop()
            try:
                await call_undo(call, value)
            except Exception as failure:  # the others are undone all the same
                notes.append(f"the compensation {call.name!r} failed too: {message_of(failure)}")
        return notes

    def _call_undo(self, call: StepCall, value: Payload) -> Coroutine[Any, Any, Any]:
        return call_step(self._replay, self._replay.journal.next_token(), call, value)


class _Undoing:
    """What undoes one call, and whether anybody still waits for that call."""

    def __init__(self, compensations: Compensations, undo: StepCall) -> None:
        self.is_wanted = True
        self._compensations = compensations
        self._undo = undo

    def done(self, value: Payload, output: Payload) -> None:
        pair = {"input": _or_null(value), "output": _or_null(output)}
        self._compensations.add(self._undo, msgspec.Raw(msgspec.json.encode(pair)))


def _or_null(payload: Payload) -> msgspec.Raw | None:
    return None if isinstance(payload, UnsetType) else payload
