"""One run against a worker and a broker that may be slow, repeat themselves, or lose things."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from msgspec import Raw

from durable_worker.operator.transitions.apply import apply, carried_by
from durable_worker.operator.transitions.effects import (
    AwaitSignal,
    Deliver,
    Limits,
    SendStep,
    SendTurn,
    Transition,
)
from durable_worker.protocol.commands import (
    AnyCommand,
    CancelStep,
    DecisionStatus,
    RecordStep,
    RetryOptions,
    ScheduleStep,
    StartChild,
    StartTimer,
    WaitSignal,
    WorkflowDecision,
)
from durable_worker.protocol.failure import GIVEN_UP, Failure
from durable_worker.protocol.results import ResultStatus, StepResult
from durable_worker.protocol.runs import RunStatus
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.inputs import (
    ChildEnded,
    DecisionReceived,
    ResultReceived,
    RunInput,
    SignalMatched,
    StartRun,
    StepLost,
    StepPoisoned,
    StepRedriven,
    TimerDue,
    TurnLost,
    TurnPoisoned,
    TurnRedriven,
)
from durable_worker.stores.records import Checkpoint, CheckpointStatus, Run, RunState, turn_id

RETRY = RetryOptions(attempts=3, initial_ms=10)
LIMITED = RetryOptions(attempts=2, initial_ms=10, timeout_ms=15)

OPERATIONS: dict[str, Callable[[int], AnyCommand]] = {
    "call": lambda seq: ScheduleStep(seq=seq, name="s", group="default", retry=RETRY),
    "limited call": lambda seq: ScheduleStep(seq=seq, name="s", group="default", retry=LIMITED),
    "timer": lambda seq: StartTimer(seq=seq, ms=25),
    "signal": lambda seq: WaitSignal(seq=seq, signal="go"),
    "child": lambda seq: StartChild(seq=seq, workflow="c"),
    "record": lambda seq: RecordStep(seq=seq, name=f"now#{seq}", output=Raw(b"1")),
}


@dataclass(frozen=True)
class Stage:
    """Operations that begin together; the stage is over when one, or all, are resolved."""

    kinds: tuple[str, ...]
    is_race: bool


def decide(program: tuple[Stage, ...], task_id: str, visible: frozenset[int]) -> WorkflowDecision:
    """What a worker answers to a turn that shows `visible`: it re-emits all that is outstanding."""
    commands: list[AnyCommand] = []
    seq = 0
    for stage in program:
        seqs = range(seq, seq + len(stage.kinds))
        seq = seqs.stop
        recorded = set()
        for each, kind in zip(seqs, stage.kinds, strict=True):
            if each not in visible:
                commands.append(OPERATIONS[kind](each))
                if kind == "record":
                    recorded.add(each)
        done = [each in visible or each in recorded for each in seqs]
        if not (any(done) if stage.is_race else all(done)):
            return WorkflowDecision(
                task_id=task_id, run_id="r", status=DecisionStatus.CONTINUE, commands=commands
            )
    return WorkflowDecision(
        task_id=task_id,
        run_id="r",
        status=DecisionStatus.COMPLETED,
        commands=commands,
        output=Raw(b"true"),
    )


@dataclass
class World:
    """`now` in epoch ms. What is out lies in the lists until it is chosen.

    `is_strict`: the body fails as soon as it sees that a call has failed, and gives up the others.
    """

    program: tuple[Stage, ...]
    now: int = 1_000
    is_strict: bool = False
    state: RunState | None = None
    turns: list[tuple[str, frozenset[int]]] = field(default_factory=list)
    steps: list[tuple[int, int]] = field(default_factory=list)
    children: list[int] = field(default_factory=list)
    waits: list[int] = field(default_factory=list)
    shown: frozenset[int] = frozenset()
    owed_turns: list[str] = field(default_factory=list)
    doomed: dict[str, int] = field(default_factory=dict)

    def take(self, value: RunInput) -> None:
        """Apply an input, then once more: the second time must change nothing."""
        self._absorb(apply(self.state, value, now=self.now, limits=Limits(recoveries=1_000)))
        again = apply(self.state, value, now=self.now, limits=Limits(recoveries=1_000))
        assert (again.run, tuple(again.checkpoints)) == (None, ()), value
        assert not again.effects, value

    def _absorb(self, moved: Transition) -> None:
        if self.state is None:
            assert moved.run is not None
            self.state = RunState(moved.run)
        for seq in moved.withdrawn:
            assert self.state.checkpoints[seq].kind is HistoryKind.STEP, "an effect was taken back"
        self.state.absorb(moved.run, moved.checkpoints, moved.withdrawn)
        for effect in moved.effects:
            match effect:
                case SendTurn(task_id=task_id):
                    self.owed_turns.append(task_id)
                case SendStep(seq=seq, attempt=attempt):
                    self.steps.append((seq, attempt))
                case AwaitSignal(seq=seq):
                    self.waits.append(seq)
                case Deliver(input=StartRun(parent=parent)):
                    assert parent is not None
                    self.children.append(parent.seq)
                case _:
                    pass

    def commit(self) -> None:
        """The end of a transaction: turns leave with all that is resolved by now."""
        assert self.state is not None
        for task_id in self.owed_turns:
            if self.run.task_id == task_id:
                self.state.absorb(carried_by(self.run, task_id), ())
                self.shown = self.resolved()
                self.turns.append((task_id, self.shown))
                if self.is_strict and self.failed_calls():
                    self.doomed[task_id] = self.within_reach()
        self.owed_turns.clear()
        if self.run.status.is_terminal:
            # What comes now is dropped: what was asked for must be asked for again.
            self.steps, self.children, self.waits = [], [], []

    @property
    def run(self) -> Run:
        assert self.state is not None
        return self.state.run

    def resolved(self) -> frozenset[int]:
        assert self.state is not None
        return frozenset(seq for seq, each in self.state.checkpoints.items() if each.is_history)

    def failed_calls(self) -> list[Checkpoint]:
        assert self.state is not None
        return [
            each
            for each in self.state.checkpoints.values()
            if each.kind is HistoryKind.CALL and each.status is CheckpointStatus.FAILED
        ]

    def failed_of_themselves(self) -> list[Checkpoint]:
        return [each for each in self.failed_calls() if each.error != GIVEN_UP]

    def within_reach(self) -> int:
        """The first seq that a body with this history has not come to."""
        resolved, seq = self.resolved(), 0
        for stage in self.program:
            seqs = range(seq, seq + len(stage.kinds))
            seq = seqs.stop
            done = [
                each in resolved or kind == "record"
                for each, kind in zip(seqs, stage.kinds, strict=True)
            ]
            if not (any(done) if stage.is_race else all(done)):
                break
        return seq

    def check(self) -> None:
        """A run that has not ended can always go on, no resolution stays unseen, and nothing was
        asked for that the body would not ask for again."""
        assert self.state is not None
        last_words = 1 if self.run.status is RunStatus.FAILED else 0
        assert max(self.state.checkpoints, default=-1) < self.within_reach() + last_words
        if self.run.status.is_terminal:
            assert self.run.task_id is None
            assert not self.state.pending
            return
        if self.run.task_id is not None:
            assert self.run.task_id in [task_id for task_id, _ in self.turns]
            assert self.run.status is RunStatus.RUNNING
            return
        assert self.state.pending
        assert self.run.status is RunStatus.SUSPENDED
        unseen = [
            seq
            for seq in self.resolved() - self.shown
            if self.state.checkpoints[seq].kind is not HistoryKind.STEP
        ]
        assert not unseen
        for seq, each in self.state.pending.items():
            match each.kind:
                case HistoryKind.CALL:
                    assert each.fires_at is not None or (seq, each.attempt) in self.steps
                case HistoryKind.TIMER:
                    assert each.fires_at is not None
                case HistoryKind.CHILD:
                    assert seq in self.children
                case _:
                    assert seq in self.waits

    def moves(self) -> list[RunInput]:
        """Everything that could happen next, duplicates of what has happened included."""
        assert self.state is not None
        moves: list[RunInput] = []
        for task_id, visible in self.turns:
            decision = decide(self.program, task_id, visible)
            if task_id in self.doomed:
                seq = self.doomed[task_id]
                others = [each for each in range(seq) if each not in visible]
                decision = _failure_of(task_id, seq=seq, given_up=others)
            moves.append(DecisionReceived(run_id="r", decision=decision))
        for seq, attempt in self.steps:
            moves += [_result(seq, attempt, fails=False), _result(seq, attempt, fails=True)]
        for seq in self.children:
            moves.append(ChildEnded(run_id="r", seq=seq, status=RunStatus.COMPLETED))
            moves.append(ChildEnded(run_id="r", seq=seq, status=RunStatus.DEAD))
        moves += [SignalMatched(run_id="r", seq=seq) for seq in self.waits]
        moves += [
            TimerDue(run_id="r", seq=seq)
            for seq, each in self.state.pending.items()
            if each.fires_at is not None
        ]
        return moves

    def poisons(self) -> list[RunInput]:
        """Messages that nobody can handle: of what is out."""
        assert self.state is not None
        found: list[RunInput] = []
        if self.run.task_id is not None:
            found.append(TurnPoisoned(run_id="r", task_id=self.run.task_id, reason="no"))
        for seq, each in self.state.pending.items():
            if each.kind is HistoryKind.CALL and each.fires_at is None:
                poisoned = StepPoisoned(run_id="r", seq=seq, reason="no", attempt=each.attempt)
                found.append(poisoned)
        return found

    def redrives(self) -> list[RunInput]:
        found: list[RunInput] = [
            StepRedriven(run_id="r", seq=each.seq, attempt=each.attempt)
            for each in self.failed_of_themselves()
        ]
        if self.run.status is RunStatus.DEAD:
            task_id = turn_id("r", self.run.turn_no)
            found.append(TurnRedriven(run_id="r", task_id=task_id))
        return found

    def losses(self) -> list[RunInput]:
        assert self.state is not None
        lost: list[RunInput] = []
        if self.run.task_id is not None:
            lost.append(TurnLost(run_id="r", task_id=self.run.task_id))
        for seq, each in self.state.pending.items():
            if each.kind is HistoryKind.CALL:
                lost.append(
                    StepLost(run_id="r", seq=seq, attempt=each.attempt, recoveries=each.recoveries)
                )
        return lost


def _failure_of(task_id: str, *, seq: int, given_up: Iterable[int]) -> WorkflowDecision:
    last_words = RecordStep(seq=seq, name="event:state", output=Raw(b'"failed"'))
    return WorkflowDecision(
        task_id=task_id,
        run_id="r",
        status=DecisionStatus.FAILED,
        commands=[last_words, *(CancelStep(seq=each) for each in given_up)],
        error=Failure(message="a call has failed"),
    )


def _result(seq: int, attempt: int, *, fails: bool) -> ResultReceived:
    return ResultReceived(
        run_id="r",
        attempt=attempt,
        result=StepResult(
            run_id="r",
            seq=seq,
            step_id=f"r:{seq}",
            status=ResultStatus.FAILED if fails else ResultStatus.COMPLETED,
            error=Failure(message="no") if fails else None,
        ),
    )
