"""Payloads between the wire and what runs here: opened on the way in, sealed on the way out.

What replays and what steps take is always in clear, so nothing else knows of envelopes. A turn
comes with the whole history, and goes with everything that is outstanding; what was opened and
sealed for a recent run is kept, so that a long run costs no more with each turn.
"""

from collections import OrderedDict
from fnmatch import fnmatchcase
from typing import Any

from msgspec import Raw, Struct, field, structs

from durable_worker.edge.errors import SealError
from durable_worker.edge.parts import (
    is_internal,
    open_failure,
    seal_event,
    seal_events,
    seal_failure,
)
from durable_worker.edge.plain import PLAIN, Codec
from durable_worker.protocol.base import Payload
from durable_worker.protocol.commands import (
    AnyCommand,
    DecisionStatus,
    RecordStep,
    ScheduleStep,
    StartChild,
    WorkflowDecision,
)
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.growing import History
from durable_worker.protocol.names import child_run_id
from durable_worker.protocol.payload_envelope import MARK, Opened, may_be_enveloped
from durable_worker.protocol.results import StepEvent, StepResult, WorkflowStepEvent
from durable_worker.protocol.tasks import (
    HistoryEvent,
    HistoryKind,
    PendingSignal,
    StepTask,
    WorkflowTask,
)
from durable_worker.replay.failures import failure_of
from durable_worker.replay.opened import context_of, context_values, opened_task
from durable_worker.worker.registry import Worker

KEPT_BYTES = 64 * 1024 * 1024
"""Bytes of payloads that are kept open, at the most."""

KEPT_RUNS = 1_000


class _Kept(Struct):
    """What came sealed and how it opened; what was in clear and how it was sealed."""

    input: tuple[Payload, Opened] | None = None
    events: dict[int, tuple[HistoryEvent, HistoryEvent]] = field(
        default_factory=dict[int, tuple[HistoryEvent, HistoryEvent]]
    )
    signals: dict[int, tuple[PendingSignal, PendingSignal]] = field(
        default_factory=dict[int, tuple[PendingSignal, PendingSignal]]
    )
    commands: dict[int, tuple[AnyCommand, AnyCommand]] = field(
        default_factory=dict[int, tuple[AnyCommand, AnyCommand]]
    )
    bytes: int = 0
    commands_bytes: int = 0


class WorkerEdge:
    """The `codec` of one worker at work. What cannot be opened or sealed raises `SealError`."""

    def __init__(self, worker: Worker) -> None:
        self._codec: Codec = worker.codec or PLAIN
        self._is_plain = worker.codec is None
        self._worker = worker
        self._workflows = frozenset(name for name, _ in worker.workflows)
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._bytes = 0

    # Turns

    async def open_turn(self, task: WorkflowTask, body: bytes) -> WorkflowTask:
        """The task in clear, with the context of its run. `body` is the message that it came in."""
        if not self._codec.demands_seals and not _may_hold_envelopes(task, body):
            return task
        kept = self._take(task.run_id)
        opened = await self._input(task, kept)
        history = [await self._event(task, each, kept) for each in task.history]
        signals = [await self._signal(each, kept) for each in task.pending_signals or ()]
        self._keep(task.run_id, kept)
        task = structs.replace(
            task, input=opened.value, history=history, pending_signals=signals or None
        )
        return task if opened.context is None else opened_task(task, opened.context)

    async def _input(self, task: WorkflowTask, kept: _Kept) -> Opened:
        known = kept.input
        if known is not None and known[0] == task.input:
            return known[1]
        opened = await self._codec.open(task.input, what=f"the input of run {task.run_id!r}")
        kept.input = (task.input, opened)
        kept.bytes += _size(task.input) + _size(opened.value)
        return opened

    async def _event(self, task: WorkflowTask, event: HistoryEvent, kept: _Kept) -> HistoryEvent:
        if self._is_plain and event.error is None and not may_be_enveloped(event.output):
            return event
        known = kept.events.get(event.seq)
        if known is not None and known[0] == event:
            return known[1]
        if event.kind is HistoryKind.TIMER or (
            event.kind is HistoryKind.STEP and is_internal(event.name, event.output, event.error)
        ):
            return event
        what = f"the {_noun(event)} at seq {event.seq} of run {task.run_id!r}"
        if event.error is not None:
            opened = structs.replace(
                event, error=await open_failure(self._codec, event.error, what=what)
            )
        else:
            opened = structs.replace(
                event, output=(await self._codec.open(event.output, what=what)).value
            )
        kept.events[event.seq] = (event, opened)
        kept.bytes += _size(event.output) + _size(opened.output)
        return opened

    async def _signal(self, signal: PendingSignal, kept: _Kept) -> PendingSignal:
        known = kept.signals.get(signal.seq)
        if known is not None and known[0] == signal:
            return known[1]
        opened = await self._codec.open(
            signal.payload, what=f"the payload of signal {signal.signal!r}"
        )
        clear = structs.replace(signal, payload=opened.value)
        kept.signals[signal.seq] = (signal, clear)
        kept.bytes += _size(signal.payload) + _size(opened.value)
        return clear

    async def seal_decision(
        self, decision: WorkflowDecision, task: WorkflowTask
    ) -> WorkflowDecision:
        """The context of `task`, once opened, goes to each step and child that can read it."""
        context = context_of(task)
        if self._is_plain and context is None and not _needs_envelope(decision):
            return decision
        run_id, codec = decision.run_id, self._codec
        kept = self._take(run_id)
        before, kept.commands, kept.commands_bytes = kept.commands, {}, 0
        commands: list[AnyCommand] = []
        for command in decision.commands:
            known = before.get(command.seq)
            if known is not None and known[0] == command:
                sealed = known[1]
            else:
                sealed = await self._command(run_id, command, context)
            if not self._is_plain and isinstance(command, (ScheduleStep, StartChild)):
                kept.commands[command.seq] = (command, sealed)
                kept.commands_bytes += 2 * _size(command.input)
            commands.append(sealed)
        if decision.status is DecisionStatus.CONTINUE:
            self._keep(run_id, kept)
        error = decision.error
        return structs.replace(
            decision,
            commands=commands,
            output=await codec.seal(decision.output, salt=run_id),
            error=None if error is None else await seal_failure(codec, error, salt=run_id),
            input=await self._next_input(decision, context),
        )

    async def _next_input(self, decision: WorkflowDecision, context: Raw | None) -> Payload:
        if decision.status is not DecisionStatus.CONTINUED:
            return decision.input
        return await self._codec.seal(decision.input, salt=decision.run_id, context=context)

    async def _command(self, run_id: str, command: AnyCommand, context: Raw | None) -> AnyCommand:
        match command:
            case ScheduleStep():
                told = context if self._can_read(command.name, self._worker.steps) else None
                sealed = await self._codec.seal(command.input, salt=run_id, context=told)
                return structs.replace(command, input=sealed)
            case StartChild():
                told = context if self._can_read(command.workflow, self._workflows) else None
                salt = child_run_id(run_id, command.seq)
                sealed = await self._codec.seal(command.input, salt=salt, context=told)
                return structs.replace(command, input=sealed)
            case RecordStep() if not (is_internal(command.name, command.output, command.error)):
                return structs.replace(
                    command,
                    output=await self._codec.seal(command.output, salt=run_id),
                    error=await self._failure(command.error, run_id),
                    events=await seal_events(self._codec, command.events, salt=run_id),
                )
            case _:
                return command

    def _can_read(self, name: str, own: Any) -> bool:
        """Whether its peer opens envelopes: one of ours, one that shares our keys, or as stated."""
        return (
            self._codec.protects
            or name in own
            or any(fnmatchcase(name, pattern) for pattern in self._worker.context_to)
        )

    def _take(self, run_id: str) -> _Kept:
        """What is kept of a run; nobody else has it until it is kept again."""
        kept = self._kept.pop(run_id, None)
        if kept is None:
            return _Kept()
        self._bytes -= kept.bytes + kept.commands_bytes
        return kept

    def _keep(self, run_id: str, kept: _Kept) -> None:
        if self._is_plain:
            return
        self._take(run_id)
        self._kept[run_id] = kept
        self._bytes += kept.bytes + kept.commands_bytes
        while len(self._kept) > KEPT_RUNS or self._bytes > KEPT_BYTES:
            self._take(next(iter(self._kept)))

    # Steps

    def may_be_sealed(self, task: StepTask, body: bytes) -> bool:
        """`body` is the message that it came in."""
        return self._codec.demands_seals or (MARK in body and may_be_enveloped(task.input))

    async def open_step(self, task: StepTask) -> StepTask:
        """The task in clear, with the context of its run in `context` and `traceparent`."""
        what = f"the input of step {task.name!r} (run {task.run_id!r}, seq {task.seq})"
        opened = await self._codec.open(task.input, what=what)
        return with_context(structs.replace(task, input=opened.value), opened.context)

    def has_to_seal(self, result: StepResult) -> bool:
        return not self._is_plain or _outcome_needs(result) or _events_need(result)

    async def seal_result(self, result: StepResult) -> StepResult:
        run_id = result.run_id
        return structs.replace(
            result,
            output=await self._codec.seal(result.output, salt=run_id),
            error=await self._failure(result.error, run_id),
            events=await seal_events(self._codec, result.events, salt=run_id),
        )

    async def seal_step_event(self, event: WorkflowStepEvent) -> WorkflowStepEvent:
        return structs.replace(
            event,
            output=await self._codec.seal(event.output, salt=event.run_id),
            error=await self._failure(event.error, event.run_id),
        )

    async def seal_progress(self, run_id: str, event: StepEvent) -> StepEvent:
        if self._is_plain and not may_be_enveloped(event.data):
            return event
        return await seal_event(self._codec, event, salt=run_id)

    async def _failure(self, failure: Failure | None, run_id: str) -> Failure | None:
        return None if failure is None else await seal_failure(self._codec, failure, salt=run_id)


def _may_hold_envelopes(task: WorkflowTask, body: bytes) -> bool:
    history = task.history
    return history.may_hold_envelopes if isinstance(history, History) else MARK in body


def with_context(task: StepTask, context: Raw | None) -> StepTask:
    """What came with the run counts more than what the operator says."""
    if context is None:
        return task
    values = context_values(context)
    traceparent = values.get("traceparent")
    return structs.replace(
        task,
        context={**(task.context or {}), **values},
        traceparent=traceparent if isinstance(traceparent, str) else task.traceparent,
    )


def seal_failed(error: SealError) -> Failure:
    """In clear, since it is the operator's people who have to act on it."""
    return failure_of(error, retryable=None if error.is_retryable else False)


_Part = AnyCommand | WorkflowDecision


def _needs_envelope(part: _Part) -> bool:
    """Whether a payload in it looks like an envelope, which only an envelope can say it is not."""
    match part:
        case ScheduleStep() | StartChild():
            return may_be_enveloped(part.input)
        case RecordStep():
            return _outcome_needs(part) or _events_need(part)
        case WorkflowDecision():
            return (
                _outcome_needs(part)
                or may_be_enveloped(part.input)
                or any(map(_needs_envelope, part.commands))
            )
        case _:
            return False


def _outcome_needs(part: RecordStep | StepResult | WorkflowDecision) -> bool:
    return may_be_enveloped(part.output) or (
        part.error is not None and may_be_enveloped(part.error.details)
    )


def _events_need(part: RecordStep | StepResult) -> bool:
    return part.events is not None and any(may_be_enveloped(each.data) for each in part.events)


def _noun(event: HistoryEvent) -> str:
    match event.kind:
        case HistoryKind.SIGNAL:
            return "signal"
        case HistoryKind.CHILD:
            return "outcome of the child"
        case _:
            return f"outcome of step {event.name!r}" if event.name else "outcome of the step"


def _size(payload: Payload) -> int:
    return len(payload) if isinstance(payload, Raw) else 0
