"""Whether today's code still fits what an operator has recorded of a run.

Nothing is run: where the body would do something that is not recorded, the check ends. What the
body has asked for and not got yet is compared as well: it is not in history, but it will be.
"""

from msgspec import UnsetType

from durable_worker.errors import (
    DurableError,
    FailureError,
    FatalError,
    NondeterminismError,
    WorkflowStuckError,
)
from durable_worker.protocol.base import Payload
from durable_worker.protocol.commands import (
    AnyAsked,
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
from durable_worker.protocol.runs import RunStatus
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.replay.definitions import WorkflowDefinition
from durable_worker.replay.failures import message_of
from durable_worker.replay.operations import RunLocally, place_of, same_payload
from durable_worker.replay.timeline import RecordedRun, RunEnd
from durable_worker.replay.turn import ContextFactory, Outcome, Replay
from durable_worker.replay.witness import Asked, Witness

_NOT_ITS_OWN = frozenset({"nondeterminism", "registration", "poison", "stuck", "cancelled"})
"""Codes of failures that say nothing about what the body does at its end."""

_LONGEST_VALUE = 120


def mismatch_of(
    definition: WorkflowDefinition,
    recorded: RecordedRun,
    context_factory: ContextFactory,
    *,
    compares_end: bool = True,
) -> NondeterminismError | None:
    """How the code differs from the record, None if it does not.

    `compares_end`: also the output or failure of a run that has ended.
    """
    witness = Witness(recorded.waiting, is_over=recorded.end is not None)
    replay = Replay(definition, recorded.task, context_factory, journal=witness)
    try:
        outcome = replay.begin(recorded.task, now_ms=0)
        _Comparison(recorded, witness, replay, outcome).compare(compares_end=compares_end)
    except NondeterminismError as error:
        return witness.explain(error)
    finally:
        replay.dispose()
    return None


class _Comparison:
    def __init__(
        self,
        recorded: RecordedRun,
        witness: Witness,
        replay: Replay,
        outcome: Outcome,
    ) -> None:
        self._recorded = recorded
        self._witness = witness
        self._error = replay.error
        self._ended = replay.ended
        self._has_promised = bool(replay.waiting.promised)
        self._new_ground = witness.new_ground
        self._decision: WorkflowDecision | None = None
        match outcome:
            case RunLocally(steps=steps):
                self._new_ground = min(each.seq for each in steps)
            case WorkflowDecision() if self._new_ground is None:
                self._decision = outcome
            case _:
                pass

    def compare(self, *, compares_end: bool) -> None:
        """Raises `NondeterminismError`."""
        if isinstance(self._witness.failure, NondeterminismError):
            raise self._witness.failure
        self._compare_waiting()
        if self._recorded.end is not None:
            self._compare_end(self._recorded.end, compares_end=compares_end)
        elif self._is_a_mistake():
            raise self._mismatch(
                self._witness.next_seq, recorded="a run that goes on", asked=self._standing()
            )

    # What is open

    def _compare_waiting(self) -> None:
        asked = self._asked()
        for seq, waits in sorted(self._recorded.waiting.items()):
            new = self._new_ground
            if new is not None and new < seq and new not in self._recorded.waiting:
                raise self._mismatch(new, recorded="nothing", asked=asked[new].describe())
            wanted = asked.get(seq)
            if wanted is None or not _is_same(waits, wanted):
                raise self._mismatch(
                    seq,
                    recorded=f"{waits.describe()} (open)",
                    asked=self._standing() if wanted is None else wanted.describe(),
                )

    def _asked(self) -> dict[int, Asked]:
        commands = [] if self._decision is None else asked_in(self._decision)
        unasked = {each.seq: asked_by(each) for each in commands}
        if self._ended is not None and self._has_promised:
            # What ends the wait of a body that has ended until its children have been started; it
            # is not asked for again once they have.
            unasked[self._witness.next_seq] = Asked(HistoryKind.TIMER, None)
        return {**unasked, **self._witness.asked}

    def _is_a_mistake(self) -> bool:
        """Whether the body ends with an error that no recorded step and no user has raised."""
        error = self._error
        return (
            self._decision is not None
            and isinstance(error, DurableError)
            and not isinstance(error, (FailureError, FatalError))
        )

    # The end

    def _compare_end(self, end: RunEnd, *, compares_end: bool) -> None:
        if end.error is not None and end.error.code in _NOT_ITS_OWN:
            return
        found, witness = self._as_ended(), self._witness
        if found is None:
            seq = min((s for s in witness.asked if s not in witness.events), default=None)
            asked = self._standing() if seq is None else witness.asked[seq].describe()
            seq = witness.next_seq if seq is None else seq
            raise self._mismatch(seq, recorded=f"the end: {_told(end)}", asked=asked)
        is_same = _is_same_end(end, found) if compares_end else end.status is found.status
        if not is_same:
            raise self._mismatch(
                witness.next_seq,
                recorded=f"the end: {_told(end)}",
                asked=f"the end: {_told(found)}",
            )

    def _as_ended(self) -> RunEnd | None:
        decision = self._decision
        if decision is None or decision.status in _GOES_ON:
            return None
        return RunEnd(
            status=RunStatus(decision.status.value), output=decision.output, error=decision.error
        )

    # In words

    def _standing(self) -> str:
        """What the body does where the check ended."""
        new, decision = self._new_ground, self._decision
        if new is not None:
            return self._witness.asked[new].describe()
        assert decision is not None
        if decision.status is not DecisionStatus.CONTINUE:
            return f"nothing more: {self._how_it_ended()}"
        awaited = [each.describe() for each in map(asked_by, asked_in(decision))]
        return f"nothing more: it waits for {', '.join(awaited) or 'nothing'}"

    def _mismatch(self, seq: int, *, recorded: str, asked: str) -> NondeterminismError:
        at = self._witness.asked.get(seq)
        location = at.location if at is not None else None
        if location is None and self._ended is not None:
            location = self._ended.location
        place = "in library code" if location is None else place_of(location)
        return NondeterminismError(seq=seq, recorded=recorded, asked=asked, location=place)

    def _how_it_ended(self) -> str:
        if self._ended is not None:
            return self._ended.how
        return f"the turn has failed: {message_of(self._error or WorkflowStuckError())}"


_GOES_ON = (DecisionStatus.CONTINUE, DecisionStatus.CONTINUED)


def _is_same(waits: Asked, wanted: Asked) -> bool:
    if waits.kind is not wanted.kind:
        return False
    if waits.kind is HistoryKind.TIMER or waits.name == wanted.name:
        return True
    # A breakpoint says its name beside that of its signal.
    return f"{wanted.name}".startswith(f"{waits.name} (")


def asked_in(decision: WorkflowDecision) -> list[AnyAsked]:
    return [each for each in decision.commands if not isinstance(each, CancelStep)]


def asked_by(command: AnyAsked) -> Asked:
    match command:
        case ScheduleStep(name=name):
            return Asked(HistoryKind.CALL, name)
        case RecordStep(name=name):
            return Asked(HistoryKind.STEP, name)
        case StartTimer():
            return Asked(HistoryKind.TIMER, None)
        case WaitSignal(signal=signal):
            return Asked(HistoryKind.SIGNAL, signal)
        case StartChild(workflow=workflow):
            return Asked(HistoryKind.CHILD, workflow)


def _is_same_end(left: RunEnd, right: RunEnd) -> bool:
    if left.status is not right.status:
        return False
    if left.status is RunStatus.COMPLETED:
        return same_payload(left.output, right.output)
    return _reason(left.error) == _reason(right.error)


def _reason(failure: Failure | None) -> tuple[str | None, str | None]:
    return (None, None) if failure is None else (failure.code, failure.message)


def _told(end: RunEnd) -> str:
    if end.status is RunStatus.COMPLETED:
        return f"completed with {_shortened(end.output)}"
    code, message = _reason(end.error)
    return f"{end.status}: {message}" + (f" [{code}]" if code else "")


def _shortened(payload: Payload) -> str:
    text = "null" if isinstance(payload, UnsetType) else bytes(payload).decode(errors="replace")
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."
