"""What a body has asked for and not got yet."""

import asyncio
from collections.abc import Sequence
from types import CodeType
from typing import Any

import msgspec
from msgspec import Struct

from durable_worker.protocol.base import MAX_INTEGER, Payload
from durable_worker.protocol.commands import (
    AnyCommand,
    RecordStep,
    StartTimer,
)
from durable_worker.protocol.names import CANCELLED_MARKER, CONTINUED_MARKER
from durable_worker.protocol.payload import encode_payload
from durable_worker.protocol.tasks import HistoryEvent, HistoryKind
from durable_worker.replay.definitions import StepDefinition
from durable_worker.replay.loop import DurableTimer

CALL_RETRY = "call-retry"
"""Operator capability: it honours `retry` on a call and counts the attempts itself."""
CALL_TIMEOUT = "call-timeout"
"""Operator capability: it honours `timeoutMs` in the retry policy of a call."""
DURABLE_TIMERS = "durable-timers"
"""Operator capability: repeating a timer keeps its first deadline."""
PARK = "park"
"""Operator capability: a turn that fails because of the code does not end its run."""
ORDERED_HISTORY = "ordered-history"
"""Operator capability: history tells in which order operations were resolved."""
HISTORY_DELTAS = "history-deltas"
"""Operator capability: it tells a worker that keeps a run only what is new in its history."""
CONTINUE_AS_NEW = "continue-as-new"
"""Operator capability: a body may end to go on with another input and an empty history."""
SEARCH_ATTRIBUTES = "search-attributes"
"""Operator capability: a body may set the search attributes of its run."""
CANCEL_STEPS = "cancel-steps"
"""Operator capability: it is told which calls a body has given up."""
CANCEL_TURNS = "cancel-turns"
"""Operator capability: a cancelled run gets turns with `cancel` until its body has ended."""

DELIVERED = "durable:delivered"
DEADLINES = "durable:deadlines"
CANCELLED = CANCELLED_MARKER
TIMEOUTS = "durable:timeouts"
CONTINUED = CONTINUED_MARKER
RESERVED = "durable:"
SIDE_EFFECT = "sideEffect"


Location = tuple[CodeType, int]
"""Where user code asked for something: cheap to take, turned into text only for an error."""


def place_of(location: Location) -> str:
    code, line = location
    return f"{code.co_filename}:{line}"


class Operation(Struct):
    """An operation at `seq`, to be resolved by the history event of that seq.

    `name` is what history must hold there; None where history tells no name.
    """

    seq: int
    kind: HistoryKind
    name: str | None
    location: Location | None
    future: "asyncio.Future[HistoryEvent] | None" = None

    def command(self, now_ms: int) -> AnyCommand | None:  # noqa: ARG002
        """What to (re-)emit while this is outstanding."""
        return None

    def describe(self) -> str:
        return describe(self.kind, self.name)


class Requested(Operation):
    """A call, child or signal wait: its command never changes and is harmless to repeat.

    `subject` is what a signal wait is for: a later wait for the same takes up one given up before.
    `is_undone`: a call that is undone once it has taken effect, and so is let go on in any case.
    """

    request: AnyCommand | None = None
    subject: str = ""
    is_undone: bool = False

    def command(self, now_ms: int) -> AnyCommand | None:  # noqa: ARG002
        return self.request


class Timer(Operation):
    """`deadline_ms` is known once it was recorded; until then the whole duration is asked for."""

    ms: int = 0
    deadline_ms: int | None = None
    handle: DurableTimer | None = None

    def command(self, now_ms: int) -> AnyCommand | None:
        remaining = self.ms if self.deadline_ms is None else max(0, self.deadline_ms - now_ms)
        return StartTimer(seq=self.seq, ms=remaining)


class LocalStep(Operation):
    """A step that runs in this worker during the turn, and is recorded."""

    definition: StepDefinition | None = None
    input: Payload = msgspec.UNSET


class RunLocally(Struct, frozen=True):
    """The turn needs these steps to be run in the worker before it can go on."""

    steps: tuple[LocalStep, ...]


class IdlePoint(Struct, frozen=True):
    """An idle body to which only a part of what it waits for has been delivered, unrecorded.

    `waiting` is what was outstanding when it became idle, `delivered` what it got since, in order.
    """

    waiting: frozenset[int]
    delivered: tuple[int, ...] = ()


class Phase(Struct, frozen=True, gc=False):
    """What the body does between two idle points, in which it asks for something new.

    `waiting` is what the idle point before it waited for, `is_part` that only a part of it was
    delivered, in the present: had an earlier turn been here and asked for more, it would have left
    a marker at the seq from which on the body does so.
    """

    waiting: frozenset[int] = frozenset()
    is_part: bool = False


def whole_milliseconds(seconds: float) -> int:
    try:
        ms = max(1, round(seconds * 1000))
    except (OverflowError, ValueError) as error:
        raise ValueError(f"a durable timer cannot wait for {seconds} seconds") from error
    if ms > MAX_INTEGER:
        raise ValueError(f"a durable timer cannot wait for {seconds} seconds: that is too long")
    return ms


def describe(kind: HistoryKind, name: str | None) -> str:
    match kind:
        case HistoryKind.CALL:
            return f"step {name!r}"
        case HistoryKind.STEP:
            return f"recorded value {name!r}"
        case HistoryKind.TIMER:
            return "a timer"
        case HistoryKind.SIGNAL:
            return f"a wait for signal {name!r}" if name else "a wait for a signal"
        case HistoryKind.CHILD:
            return f"child workflow {name!r}" if name else "a child workflow"


def recorded_event(record: RecordStep) -> HistoryEvent:
    """What history holds once `record` was applied."""
    return HistoryEvent(
        seq=record.seq,
        kind=HistoryKind.STEP,
        name=record.name,
        output=record.output,
        error=record.error,
    )


def delivered_marker(seq: int, delivered: Sequence[int]) -> RecordStep:
    return RecordStep(seq=seq, name=DELIVERED, output=_json(list(delivered)))


def cancelled_marker(seq: int, delivered: Sequence[int]) -> RecordStep:
    return RecordStep(seq=seq, name=CANCELLED, output=_json(list(delivered)))


def deadlines_marker(seq: int, deadlines: dict[int, int]) -> RecordStep:
    return RecordStep(seq=seq, name=DEADLINES, output=_json(deadlines))


def read_delivered(event: HistoryEvent) -> list[int]:
    return msgspec.json.decode(_bytes(event), type=list[int])


def read_deadlines(event: HistoryEvent) -> dict[int, int]:
    return msgspec.json.decode(_bytes(event), type=dict[int, int])


def _bytes(event: HistoryEvent) -> bytes:
    return b"null" if isinstance(event.output, msgspec.UnsetType) else bytes(event.output)


def _json(value: Any) -> Payload:
    return encode_payload(value, what="a marker")


def same_payload(left: Payload, right: Payload) -> bool:
    """Equal as JSON values: a peer may have written the same value with other bytes."""
    left_bytes = b"null" if isinstance(left, msgspec.UnsetType) else bytes(left)
    right_bytes = b"null" if isinstance(right, msgspec.UnsetType) else bytes(right)
    if left_bytes == right_bytes:
        return True
    try:
        return bool(msgspec.json.decode(left_bytes) == msgspec.json.decode(right_bytes))
    except msgspec.DecodeError:
        return False
