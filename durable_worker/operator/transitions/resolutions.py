"""How pending operations come to their end: results, timers, signals, children."""

from msgspec.structs import replace

from durable_worker.operator.transitions.draft import Draft, instant, with_attempt_out
from durable_worker.operator.transitions.effects import SendStep
from durable_worker.operator.transitions.poison import poison_told
from durable_worker.protocol.control import EngineEventType
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.names import CANCELLED_MARKER, step_id
from durable_worker.protocol.results import ResultStatus, StepResult
from durable_worker.protocol.retry import TIMED_OUT, delay_before_next, may_retry
from durable_worker.protocol.runs import RunStatus
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.inputs import ChildEnded, SignalMatched, StepPoisoned
from durable_worker.stores.records import PARKED_SEQ, Checkpoint

_UNEXPLAINED = Failure(message="the step failed without saying why")


def _pending(draft: Draft, seq: int, kind: HistoryKind) -> Checkpoint | None:
    found = draft.checkpoint(seq)
    return found if found is not None and found.is_pending and found.kind is kind else None


def on_result(draft: Draft, result: StepResult, *, attempt: int | None) -> None:
    """Late answers (another attempt, an operation that has ended) change nothing."""
    call = _pending(draft, result.seq, HistoryKind.CALL)
    if call is None or (attempt is not None and attempt != call.attempt):
        return
    if not call.is_out:
        # The attempt has been answered already: what comes now repeats it.
        return
    call = _with_report(call, result, now=draft.now)
    if result.status is ResultStatus.COMPLETED:
        draft.resolve(call, output=result.output)
        draft.emit(EngineEventType.STEP_COMPLETED, call=call, output=result.output)
        return
    _attempt_failed(draft, call, result.error or _UNEXPLAINED)


def _attempt_failed(draft: Draft, call: Checkpoint, failure: Failure) -> None:
    is_over = _was_given_up(draft, call)
    if not is_over and call.retry and may_retry(call.retry, failure, attempt=call.attempt):
        key = step_id(call.run_id, call.seq)
        delay = delay_before_next(call.retry, attempt=call.attempt, key=key)
        fires_at = instant(draft.now + delay)
        draft.put(
            replace(call, attempt=call.attempt + 1, fires_at=fires_at, error=failure, recoveries=0)
        )
        return
    _fail(draft, call, failure)


def _was_given_up(draft: Draft, call: Checkpoint) -> bool:
    """Whether the body was cancelled after it had asked for this: there is no further attempt.

    What it asks for later is to undo what was done.
    """
    if draft.run.status is not RunStatus.CANCELLING:
        return False
    marker = draft.recorded_at(CANCELLED_MARKER)
    return marker is not None and call.seq < marker


def _with_report(call: Checkpoint, result: StepResult, *, now: int) -> Checkpoint:
    started = call.started_at
    if started is None and result.started_at is not None:
        started = min(instant(result.started_at), now)
    events = (*call.events, *result.events) if result.events else call.events
    return replace(call, started_at=started, events=events)


def _fail(draft: Draft, call: Checkpoint, failure: Failure) -> None:
    draft.resolve(call, error=failure)
    draft.emit(EngineEventType.STEP_FAILED, call=call, error=failure)


def _too_late(call: Checkpoint) -> Failure:
    limit = 0 if call.retry is None or call.retry.timeout_ms is None else call.retry.timeout_ms
    return Failure(message=f"no result came within {limit / 1000:g} s", code=TIMED_OUT)


def on_timer(draft: Draft, seq: int) -> None:
    """A deadline has passed: a sleep is over, an attempt at a call has had no result in time, or
    the call is due for its next one."""
    waiting = draft.checkpoint(seq)
    if waiting is None or not waiting.is_pending or waiting.fires_at is None:
        return
    if waiting.fires_at > draft.now:
        return
    if seq == PARKED_SEQ:
        draft.start_turn()
        return
    if waiting.kind is HistoryKind.TIMER:
        draft.resolve(waiting)
        return
    if waiting.is_out:
        _attempt_failed(draft, waiting, _too_late(waiting))
        return
    if _was_given_up(draft, waiting):
        _fail(draft, waiting, waiting.error or _UNEXPLAINED)
        return
    draft.put(with_attempt_out(waiting, now=draft.now))
    draft.add(SendStep(waiting.run_id, seq, waiting.attempt))


def on_signal(draft: Draft, signal: SignalMatched) -> None:
    waiting = _pending(draft, signal.seq, HistoryKind.SIGNAL)
    if waiting is not None:
        if signal.received_at is not None:
            waiting = replace(waiting, started_at=signal.received_at)
        draft.resolve(waiting, output=signal.payload)


def on_child_ended(draft: Draft, ended: ChildEnded) -> None:
    child = _pending(draft, ended.seq, HistoryKind.CHILD)
    if child is None:
        return
    if ended.status is RunStatus.COMPLETED:
        draft.resolve(child, output=ended.output)
        return
    failure = ended.error or Failure(message=f"the child run ended as {ended.status.value}")
    draft.resolve(child, error=failure)


def on_step_poisoned(draft: Draft, poisoned: StepPoisoned) -> None:
    call = _pending(draft, poisoned.seq, HistoryKind.CALL)
    if call is None or (poisoned.attempt is not None and poisoned.attempt != call.attempt):
        return
    if poisoned.is_suspicion and call.recoveries < draft.limits.second_chances:
        if poisoned.recoveries == call.recoveries:
            draft.put(replace(call, recoveries=call.recoveries + 1))
            draft.add(SendStep(call.run_id, call.seq, call.attempt))
        return
    what = f"step {call.name!r} (seq {call.seq}, attempt {call.attempt})"
    told = poison_told(poisoned, what=what, recoveries=call.recoveries)
    _fail(draft, call, Failure(message=told, code=poisoned.code, retryable=False))
