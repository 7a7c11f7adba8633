"""Replay a turn a second time, and keep what is needed to compare the two."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

import msgspec
from msgspec import UNSET, Raw, Struct

from durable_worker.errors import DurableError
from durable_worker.protocol.base import Payload
from durable_worker.protocol.commands import (
    AnyCommand,
    CancelStep,
    DecisionStatus,
    RecordStep,
    ScheduleStep,
    StartChild,
    StartTimer,
    WaitSignal,
    WorkflowDecision,
)
from durable_worker.protocol.names import DEFAULT_PARTITION
from durable_worker.protocol.tasks import HistoryEvent, HistoryKind, WorkflowTask
from durable_worker.replay.definitions import WorkflowDefinition
from durable_worker.replay.journal import caller_location
from durable_worker.replay.opened import opened_task
from durable_worker.replay.operations import (
    CANCELLED,
    DEADLINES,
    DELIVERED,
    SIDE_EFFECT,
    Location,
    RunLocally,
    place_of,
)
from durable_worker.replay.turn import ContextFactory, Outcome, Replay


class Asked(Struct, frozen=True):
    """What a body asked for at a seq: `what`, with which `value` (JSON text), and where."""

    what: str
    value: str = ""
    place: str = ""


class Turn(Struct, frozen=True):
    """How a body came out of a turn. `end` is compared, `reason` only shown."""

    asked: dict[int, Asked]
    end: str
    reason: str = ""


class Conditions(Struct, frozen=True):
    """What a turn is decided from. `given`: what the first replay recorded in it.

    `context` is that of the run: a task that was read again has lost it.
    """

    task: WorkflowTask
    now_ms: int
    given: list[RecordStep]
    partition: str | None = None
    context: Payload = UNSET

    @property
    def opened(self) -> WorkflowTask:
        return opened_task(self.task, self.context) if isinstance(self.context, Raw) else self.task


class StrayedError(DurableError):
    """Ends a second replay that needs a side effect or local step that the first did not have."""


class NotedReplay(Replay):
    """Remembers where the body asked for what is recorded at once."""

    def __init__(
        self, definition: WorkflowDefinition, task: WorkflowTask, context_factory: ContextFactory
    ) -> None:
        super().__init__(definition, task, context_factory)
        self.context_factory = context_factory
        self.places: dict[int, Location] = {}
        self.local_inputs: dict[int, Payload] = {}
        self.strayed: dict[int, Asked] = {}

    def begin(self, task: WorkflowTask, *, now_ms: int) -> Outcome:
        self.places.clear()
        self.local_inputs.clear()
        return super().begin(task, now_ms=now_ms)

    def record(self, name: str, output: Callable[[], Payload]) -> HistoryEvent:
        place = caller_location()
        if place is not None and self.journal.next_seq not in self.journal.events:
            self.places[self.journal.next_seq] = place
        return super().record(name, output)

    def _drive(self) -> Outcome:
        outcome = super()._drive()
        if isinstance(outcome, RunLocally):
            for step in outcome.steps:
                self.local_inputs[step.seq] = step.input
                if step.location is not None:
                    self.places[step.seq] = step.location
        return outcome


class SecondReplay(NotedReplay):
    """Has no effects: what was produced or run locally the first time is given to it."""

    given: Mapping[int, RecordStep]

    def record(self, name: str, output: Callable[[], Payload]) -> HistoryEvent:
        seq = self.journal.next_seq
        if name != SIDE_EFFECT or seq in self.journal.events or self.journal.is_sealed:
            return super().record(name, output)
        given = self.given.get(seq)
        if given is None or given.name != name:
            self.stray(seq, caller_location())
        self.journal.take_seq()
        event = HistoryEvent(
            seq=seq, kind=HistoryKind.STEP, name=name, output=given.output, error=given.error
        )
        self.journal.recorded.append(given)
        self.journal.extend([event])
        return event

    def stray(self, seq: int, place: Location | None) -> NoReturn:
        what = _recorded(SIDE_EFFECT)
        self.strayed[seq] = Asked(what, place=place_of(place) if place else "")
        self.journal.fail(StrayedError(f"the second replay asks for {what} at seq {seq}"))

    def local(self, needed: RunLocally) -> dict[int, RecordStep] | None:
        """The outcomes that the first replay had; None if it did not have all of them."""
        outcomes: dict[int, RecordStep] = {}
        for step in needed.steps:
            given = self.given.get(step.seq)
            if given is None or given.name != step.name:
                place = place_of(step.location) if step.location else ""
                what = f"local step {step.name!r}"
                self.strayed[step.seq] = Asked(what, _text(step.input), place)
            else:
                outcomes[step.seq] = given
        return None if self.strayed else outcomes


def rehearse(
    definition: WorkflowDefinition, context_factory: ContextFactory, conditions: Conditions
) -> Turn:
    """Replay a turn from the top, without effects, with the global `random` in another state."""

    def without_log(replay: Replay, task: WorkflowTask) -> object:
        context = context_factory(replay, task)
        replay.log_sink = None  # the first replay has logged
        return context

    task = conditions.opened
    replay = SecondReplay(definition, task, without_log)
    replay.given = {record.seq: record for record in conditions.given}
    state = random.getstate()
    random.seed()
    other = random.getstate()
    try:
        outcome = replay.begin(task, now_ms=conditions.now_ms)
        while isinstance(outcome, RunLocally):
            outcomes = replay.local(outcome)
            if outcomes is None:
                break
            outcome = replay.go_on(outcomes)
        return turn_of(replay, outcome)
    finally:
        # A step in a thread may have drawn from it meanwhile, and must not draw the same again.
        if random.getstate() == other:
            random.setstate(state)
        replay.dispose()


def turn_of(replay: NotedReplay, outcome: Outcome) -> Turn:
    """What `replay`, which has just come to `outcome`, asked for in this turn."""
    places = {seq: place_of(place) for seq, place in replay.places.items()}
    for seq, operation in replay.waiting.outstanding.items():
        if operation.location is not None:
            places[seq] = place_of(operation.location)
    is_decided = isinstance(outcome, WorkflowDecision) and not replay.journal.failure
    commands: Sequence[AnyCommand] = (
        outcome.commands
        if is_decided and isinstance(outcome, WorkflowDecision)
        else replay.journal.recorded
    )
    asked: dict[int, Asked] = {}
    for command in commands:
        what, value = _described(command, replay.local_inputs)
        asked[command.seq] = Asked(what, value, places.get(command.seq, ""))
    asked |= replay.strayed
    if isinstance(outcome, RunLocally) or replay.strayed:
        return Turn(asked, "has another way to go")
    return Turn(asked, _end(outcome), outcome.error.message if outcome.error else "")


def _described(command: AnyCommand, local: Mapping[int, Payload]) -> tuple[str, str]:
    match command:
        case ScheduleStep(seq=_, name=name, group=group, input=value):
            where = "" if group == DEFAULT_PARTITION else f" in partition {group!r}"
            return f"step {name!r}{where}", _text(value)
        case RecordStep(seq=seq, name=name) if seq in local:
            return f"local step {name!r}", _text(local[seq])
        case RecordStep(name=name, output=value):
            return _recorded(name), _text(value)
        case StartTimer(ms=ms):
            return f"a timer of {ms} ms", ""
        case WaitSignal(signal=signal):
            return f"a wait for signal {signal!r}", ""
        case StartChild(workflow=workflow, input=value):
            return f"child workflow {workflow!r}", _text(value)
        case CancelStep():
            return "the end of a step that is waited for no longer", ""


def _recorded(name: str) -> str:
    match name:
        case _ if name == SIDE_EFFECT:
            return "a side effect"
        case _ if name == DELIVERED:
            return "the order of what came"
        case _ if name == DEADLINES:
            return "the deadlines of timers"
        case _ if name == CANCELLED:
            return "the cancellation"
        case _:
            return f"recorded value {name!r}"


def _end(decision: WorkflowDecision) -> str:
    match decision.status:
        case DecisionStatus.CONTINUE:
            return "waits"
        case DecisionStatus.FAILED:
            code = decision.error.code if decision.error is not None else None
            return f"fails [{code}]"
        case DecisionStatus.COMPLETED:
            return f"returns {_text(decision.output) or 'null'}"
        case DecisionStatus.CANCELLED:
            return "is cancelled"
        case DecisionStatus.CONTINUED:
            return f"continues as new with {_text(decision.input) or 'null'}"


def _text(payload: Payload) -> str:
    """One JSON text for equal values; empty for none."""
    if isinstance(payload, msgspec.UnsetType):
        return ""
    try:
        value = msgspec.json.decode(payload)
    except msgspec.DecodeError:
        return repr(bytes(payload))
    return msgspec.json.encode(value, order="sorted").decode()
