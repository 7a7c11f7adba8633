"""An operator reduced to what a body can notice: of version 1, or with capabilities."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from msgspec import UNSET, Raw, json

from durable_worker import Worker, WorkflowContext
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
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.tasks import HistoryEvent, HistoryKind, WorkflowTask
from durable_worker.replay.definitions import WorkflowDefinition
from durable_worker.replay.operations import ORDERED_HISTORY, RunLocally
from durable_worker.replay.turn import Replay


def payload(value: object) -> Payload:
    return UNSET if value is None else Raw(json.encode(value))


@dataclass
class ModelOperator:
    """Applies decisions the way a v1 operator does; tests choose what resolves, and when."""

    workflow: str = "flow"
    version: str = "1"
    run_id: str = "run-1"
    input: object = None
    capabilities: list[str] | None = None
    now_ms: int = 1_000_000
    history: dict[int, HistoryEvent] = field(default_factory=dict)
    pending: dict[int, AnyCommand] = field(default_factory=dict)
    deadlines: dict[int, int] = field(default_factory=dict)
    turn: int = 0
    final: WorkflowDecision | None = None
    is_cancelled: bool = False
    orders: int = 0
    seen: int | None = None
    returned: list[bytes] = field(default_factory=list)

    @property
    def is_ordered(self) -> bool:
        return ORDERED_HISTORY in (self.capabilities or ())

    def task(self) -> WorkflowTask:
        self.turn += 1
        return WorkflowTask(
            task_id=f"{self.run_id}#{self.turn}",
            run_id=self.run_id,
            workflow=self.workflow,
            workflow_version=self.version,
            input=payload(self.input),
            history=[self.history[seq] for seq in sorted(self.history)],
            group=self.workflow,
            attempt=1,
            capabilities=self.capabilities,
            cancel=self.is_cancelled or None,
            seen=self.seen,
        )

    def apply(self, decision: WorkflowDecision, *, only_first: int | None = None) -> None:
        """Apply a decision; with `only_first` die after that many commands."""
        assert (decision.ordered is not None) is self.is_ordered
        if only_first is None and decision.status is DecisionStatus.CONTINUED:
            self._continue(decision)
            return
        if only_first is None:
            self.seen = decision.ordered
        commands = decision.commands if only_first is None else decision.commands[:only_first]
        for command in commands:
            match command:
                case RecordStep(seq=seq) if seq not in self.history:
                    assert seq not in self.pending, f"{command} overwrites {self.pending[seq]}"
                    self.history[seq] = HistoryEvent(
                        seq=seq,
                        kind=HistoryKind.STEP,
                        name=command.name,
                        output=command.output,
                        error=command.error,
                    )
                case StartTimer(seq=seq) if seq not in self.history:
                    self.pending[seq] = command
                    self.deadlines[seq] = self.now_ms + command.ms
                case ScheduleStep(seq=seq) | StartChild(seq=seq) | WaitSignal(seq=seq):
                    if seq not in self.history:
                        self.pending.setdefault(seq, command)
                case CancelStep(seq=seq) if seq in self.pending:
                    self.resolve(seq, error=Failure(message="given up", code="cancelled"))
                case _:
                    pass
        if only_first is None and decision.status is not DecisionStatus.CONTINUE:
            self.final = decision
        elif only_first is None and self.is_cancelled:
            assert self._knows_of_cancellation(decision), decision

    def _continue(self, decision: WorkflowDecision) -> None:
        last = max((*self.history, *self.pending, *(each.seq for each in decision.commands)))
        self.returned = [bytes(Raw(self.history[seq].output)) for seq in decision.unread or ()]
        self.history, self.pending, self.seen = {}, {}, None
        self.input = json.decode(decision.input) if decision.input is not UNSET else None
        self.history[last + 1] = HistoryEvent(
            seq=last + 1, kind=HistoryKind.STEP, name="durable:continued", output=Raw(b"1")
        )

    def _knows_of_cancellation(self, decision: WorkflowDecision) -> bool:
        """Or else an operator ends the run (protocol/README.md, "Cancel turns")."""
        if any(isinstance(each, StartTimer) and each.ms == 0 for each in decision.commands):
            return True
        return any(each.name == "durable:cancelled" for each in self.history.values())

    def resolve(self, seq: int, output: object = None, *, error: Failure | None = None) -> None:
        command = self.pending.pop(seq)
        name: str | None = None
        match command:
            case ScheduleStep():
                kind, name = HistoryKind.CALL, command.name
            case StartTimer():
                kind, name = HistoryKind.TIMER, f"sleep:{seq}"
                self.now_ms = max(self.now_ms, self.deadlines.pop(seq))
            case WaitSignal():
                kind = HistoryKind.SIGNAL
            case StartChild():
                kind = HistoryKind.CHILD
            case RecordStep() | CancelStep():
                raise AssertionError("what is never pending")
        self.orders += 1
        self.history[seq] = HistoryEvent(
            seq=seq,
            kind=kind,
            name=name,
            output=payload(output),
            error=error,
            order=self.orders if self.is_ordered else None,
        )


def new_replay(worker: Worker, task: WorkflowTask) -> Replay:
    definition: WorkflowDefinition = worker.workflows[task.workflow, task.workflow_version]
    return Replay(definition, task, worker.new_context)


LocalStepRunner = Callable[[str, int, Any], RecordStep]


def run_local(name: str, seq: int, value: object) -> RecordStep:
    return RecordStep(seq=seq, name=name, output=payload(f"{name}@{seq}"))


def take_turn(
    replay: Replay, task: WorkflowTask, *, now_ms: int, local: LocalStepRunner = run_local
) -> WorkflowDecision:
    outcome = replay.begin(task, now_ms=now_ms)
    while isinstance(outcome, RunLocally):
        outcome = replay.go_on(
            {op.seq: local(op.name or "", op.seq, op.input) for op in outcome.steps}
        )
    return outcome


def full_turn(worker: Worker, task: WorkflowTask, *, now_ms: int = 1_000_000) -> WorkflowDecision:
    replay = new_replay(worker, task)
    try:
        return take_turn(replay, task, now_ms=now_ms)
    finally:
        replay.dispose()


Body = Callable[[WorkflowContext], Coroutine[Any, Any, Any]]


def turn(body: Body, operator: ModelOperator, *, worker: Worker | None = None) -> WorkflowDecision:
    """One turn of `body` from the top, applied. `worker` holds the steps that it refers to."""
    serving = worker or Worker()
    if serving.workflow_of(body) is None:
        serving.workflow("flow")(body)
    decision = full_turn(serving, operator.task(), now_ms=operator.now_ms)
    operator.apply(decision)
    return decision


def finish(
    worker: Worker, operator: ModelOperator, answers: dict[str, object] | None = None
) -> WorkflowDecision:
    """Answer everything at once, turn by turn, until the run ends."""
    given = answers or {}
    for _ in range(1_000):
        decision = full_turn(worker, operator.task(), now_ms=operator.now_ms)
        operator.apply(decision)
        if operator.final is not None:
            return operator.final
        assert operator.pending, decision
        for seq, command in sorted(operator.pending.items()):
            operator.resolve(seq, given.get(_key(command)))
    raise AssertionError("the run did not end within 1,000 turns")


def _key(command: AnyCommand) -> str:
    match command:
        case ScheduleStep():
            return command.name
        case WaitSignal():
            return command.signal
        case StartChild():
            return command.workflow
        case _:
            return ""
