"""A run's history on one side, what the body asks for on the other; both numbered by seq."""

import asyncio
import inspect
import os
import sys
from collections.abc import Coroutine, Iterable, Sequence
from types import CodeType, FrameType
from typing import Any, NoReturn, cast

from msgspec import UNSET, Struct

from durable_worker.errors import DurableError, NeverAwaitedError, NondeterminismError
from durable_worker.protocol.commands import RecordStep
from durable_worker.protocol.growing import History
from durable_worker.protocol.tasks import HistoryEvent, HistoryKind, WorkflowTask
from durable_worker.replay.loop import DeterministicLoop
from durable_worker.replay.operations import (
    CANCELLED,
    DEADLINES,
    DELIVERED,
    Location,
    Operation,
    describe,
    place_of,
    same_payload,
)

_OURS = os.path.dirname(os.path.dirname(__file__)) + os.sep
_ASYNCIO = os.path.dirname(asyncio.__file__) + os.sep


PROCEED = "proceed"
"""In place of a method: the call by which an interceptor goes on with an operation."""

_NAMED = (HistoryKind.CALL, HistoryKind.STEP)
_TURN = DeterministicLoop.run_until_idle.__code__


class TurnAbortedError(BaseException):
    """Unwinds a body that must not go on; not an `Exception`, so that no `except` swallows it."""


class Ended(Struct, frozen=True):
    """How a body has ended, in words, and where it failed or else where it is defined."""

    how: str
    location: Location | None


class Journal:
    def __init__(self) -> None:
        self.events: dict[int, HistoryEvent] = {}
        self.bytes = 0
        self.untold: set[int] = set()
        """What is in `events` on account of this body alone: no history has held it yet."""
        self._history: History | None = None
        self._told = 0
        self.last_seq = -1
        self.last_order = 0
        """The order of the latest result in history."""
        self.told_seq = -1
        self.next_seq = 0
        self.recorded: list[RecordStep] = []
        self.failure: DurableError | None = None
        self.markers = {DELIVERED, DEADLINES, CANCELLED}
        self.is_ordered = False
        """Results are delivered in the order that history tells, not by the rules of markers."""
        self.fresh: list[HistoryEvent] = []
        """Where results are ordered: what has come since somebody last looked and cleared it."""
        self.seen = -1
        """Where results are ordered: the latest that an applied decision has known."""
        self.taken: set[int] = set()
        """The seqs of signals that the body has got: what is delivered need not have been."""
        self.is_sealed = False
        self.unstarted: dict[int, tuple[Coroutine[Any, Any, Any], str, str, Location]] = {}
        """By token: what was called and has not been awaited."""
        self.tokens = 0

    # History

    def tell(self, history: list[HistoryEvent]) -> None:
        """Take over the history of a turn, which begins with nothing recorded."""
        self.recorded.clear()
        added = self._fresh(history)
        self.extend(added)
        if self.untold:
            self.untold.difference_update([event.seq for event in added])
        self._history = history if isinstance(history, History) else None
        self._told = len(history)
        self.told_seq = max(self.told_seq, self.last_seq)

    def assume(self, events: Sequence[HistoryEvent]) -> None:
        """Take over what a later history will have to hold."""
        self.extend(events)
        self.untold.update([event.seq for event in events])

    def extend(self, events: Sequence[HistoryEvent]) -> None:
        if not events:
            return
        seqs = [event.seq for event in events]
        self.events.update(zip(seqs, events, strict=True))
        self.bytes += sum([len(each.output) for each in events if each.output is not UNSET])
        self.last_seq = max(self.last_seq, *seqs)
        if self.is_ordered:
            self.fresh += events
            orders = [each.order for each in events if each.order is not None]
            self.last_order = max(self.last_order, *orders) if orders else self.last_order

    def _fresh(self, history: list[HistoryEvent]) -> list[HistoryEvent]:
        """What the history that was told last did not have."""
        return history[self._told :] if history is self._history else history

    def is_extended_by(self, history: list[HistoryEvent]) -> list[HistoryEvent] | None:
        """What `history` adds to what is known here; None if it does not hold all of it."""
        known = self.events
        added: list[HistoryEvent] = []
        fresh = self._fresh(history)
        held = 0 if fresh is history else len(known) - len(self.untold)
        for event in fresh:
            mine = known.get(event.seq)
            if mine is None:
                added.append(event)
            elif _is_same(mine, event):
                held += 1
            else:
                return None
        return added if held == len(known) else None

    def unread(self) -> list[int]:
        """The seqs of the signals in history that the body has not got."""
        signals = (seq for seq, each in self.events.items() if each.kind is HistoryKind.SIGNAL)
        return sorted(seq for seq in signals if seq not in self.taken)

    def marker(self) -> str | None:
        """The name of what an idle body finds recorded at the next seq, if it is for idle ones."""
        event = self.events.get(self.next_seq)
        if event is None or event.kind is not HistoryKind.STEP or event.name not in self.markers:
            return None
        return event.name

    # What the body asks for

    def take_seq(self) -> int:
        if self.is_sealed:
            raise TurnAbortedError
        seq = self.next_seq
        self.next_seq = seq + 1
        return seq

    def expect(
        self,
        seq: int,
        kind: HistoryKind,
        name: str | None,
        location: Location | None = None,
        *,
        must_exist: bool = False,
    ) -> HistoryEvent | None:
        """The event at `seq`, None if it has not come yet.

        Aborts the turn if history holds another operation there, or, with `must_exist`, nothing
        although it goes on after it.
        """
        event = self.events.get(seq)
        if event is None:
            if must_exist and seq < self.last_seq:
                self.mismatch(
                    seq, recorded="nothing", asked=describe(kind, name), location=location
                )
            return None
        if not is_of(event, kind, name):
            self.mismatch(
                seq,
                recorded=describe(event.kind, event.name),
                asked=describe(kind, name),
                location=location,
            )
        return event

    def produces(self, seq: int) -> None:
        """Called before a value is made, at `seq`, that history does not hold."""

    def mismatch(
        self, seq: int, *, recorded: str, asked: str, location: Location | None = None
    ) -> NoReturn:
        place = location or caller_location()
        self.fail(
            NondeterminismError(
                seq=seq,
                recorded=recorded,
                asked=asked,
                location=place_of(place) if place else "in library code",
            )
        )

    def fail(self, error: DurableError) -> NoReturn:
        if self.failure is None:
            self.failure = error
        self.is_sealed = True
        raise TurnAbortedError

    def unconsumed(self, waiting: Iterable[Operation], *, ended: "Ended | None" = None) -> None:
        """Aborts the turn if history goes on after what the body has asked for.

        `ended` tells of a body that asks for nothing more.
        """
        if self.last_seq < self.next_seq:
            return
        seq = min(s for s in self.events if s >= self.next_seq)
        event = self.events[seq]
        places = [op for op in waiting if op.location is not None]
        if ended is not None:
            asked, location = f"nothing more: {ended.how}", ended.location
        else:
            described = ", ".join(op.describe() for op in places) or "nothing"
            asked = f"nothing more: it waits for {described}"
            location = places[0].location if places else None
        self.mismatch(
            seq, recorded=describe(event.kind, event.name), asked=asked, location=location
        )

    # Operations that were called and not awaited

    def next_token(self) -> int:
        self.tokens += 1
        return self.tokens

    def called(
        self,
        token: int,
        coroutine: Coroutine[Any, Any, Any],
        method: str,
        name: str,
        location: Location,
    ) -> None:
        self.unstarted[token] = (coroutine, method, name, location)

    def started(self, token: int) -> None:
        self.unstarted.pop(token, None)

    def refuse_never_awaited(self) -> None:
        if self.unstarted:
            left = [each for each in self.unstarted.values() if not _is_closed(each[0])]
            if not left:
                return  # cancelled before they began
            _, method, name, location = left[0]
            if method == PROCEED:
                what = "proceed(...)"
            else:
                what = f"ctx.{method}({name!r}, ...)" if name else f"ctx.{method}(...)"
            self.fail(
                NeverAwaitedError(
                    f"{what} was called at {place_of(location)} but never awaited, so it did not "
                    f"happen; write `await {what}`"
                )
            )

    def mark_called(self) -> int:
        return self.tokens

    def forget_called(self, *, since: int) -> None:
        """Drop the operations that were called after `mark_called` said `since`."""
        for token in [each for each in self.unstarted if each > since]:
            self.unstarted.pop(token)[0].close()

    def close_unstarted(self) -> None:
        for coroutine, *_ in self.unstarted.values():
            coroutine.close()
        self.unstarted.clear()


def is_of(event: HistoryEvent, kind: HistoryKind, name: str | None) -> bool:
    """Whether an operation of this kind and name is what the event resolves."""
    return event.kind is kind and (kind not in _NAMED or event.name in (None, name))


def _is_same(mine: HistoryEvent, told: HistoryEvent) -> bool:
    """Equal as far as every operator tells it back."""
    if mine.kind is not told.kind or (mine.error is None) != (told.error is None):
        return False
    if mine.kind in _NAMED and told.name not in (None, mine.name):
        return False
    if mine.error is not None and told.error is not None:
        return (mine.error.message, mine.error.code) == (told.error.message, told.error.code)
    return same_payload(mine.output, told.output)


def _is_closed(coroutine: Coroutine[Any, Any, Any]) -> bool:
    return inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


def caller_location() -> Location | None:
    """The innermost line of the body on the stack; None in a task that is the library's own.

    A frame of ours with a local `asked_at` stands in for the line that it holds: there an
    interceptor has gone on with what a body asked for, and its own lines are not what asked.
    """
    found: Location | None = None
    frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame is not None and frame.f_code is not _TURN:
        code = frame.f_code
        if found is None and _is_users(code):
            found = (code, frame.f_lineno)
        elif found is None and "asked_at" in code.co_varnames:
            found = cast("Location", frame.f_locals["asked_at"])
        frame = frame.f_back
    return None if frame is None else found


def raised_at(error: BaseException) -> Location | None:
    """The innermost line of the body in the error's traceback."""
    found: Location | None = None
    trace = error.__traceback__
    while trace is not None:
        if _is_users(trace.tb_frame.f_code):
            found = (trace.tb_frame.f_code, trace.tb_lineno)
        trace = trace.tb_next
    return found


def _is_users(code: CodeType) -> bool:
    return not code.co_filename.startswith((_OURS, _ASYNCIO))


def same_run(left: WorkflowTask, right: WorkflowTask) -> bool:
    return (
        left.run_id == right.run_id
        and left.workflow == right.workflow
        and left.workflow_version == right.workflow_version
        and left.capabilities == right.capabilities
        and (left.input is right.input or same_payload(left.input, right.input))
    )
