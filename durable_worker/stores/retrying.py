"""How a run that has stopped is set going again: what to apply, or why it cannot be. Pure."""

from collections.abc import Sequence

from durable_worker.errors import NotStoppedError
from durable_worker.protocol.failure import GIVEN_UP
from durable_worker.protocol.names import breakpoint_signal
from durable_worker.protocol.runs import ContinueRun, RetryRun, RunStatus
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.inputs import (
    RunInput,
    SignalSent,
    StepRedriven,
    TurnRedriven,
    Unparked,
)
from durable_worker.stores.letters import Refusal, hindrance_of, what_hinders
from durable_worker.stores.records import Checkpoint, CheckpointStatus, RunState, turn_id


def retry_of(state: RunState) -> Unparked | StepRedriven | TurnRedriven | Refusal:
    """Take a failed run up where it failed: its last step is tried again, if that has failed and
    the body has asked for nothing since; else the body is."""
    run = state.run
    if run.status is RunStatus.BLOCKED:
        return Unparked(run_id=run.id)
    if run.status not in (RunStatus.FAILED, RunStatus.DEAD):
        return hindrance_of(run) or Refusal(
            f"run {run.id!r} is {run.status.value}, and has not failed. What it waits for is sent "
            f"again by `durable-worker redispatch {run.id}`"
        )
    hindrance = hindrance_of(run)
    if hindrance is not None:
        return hindrance
    failed = _last_failed(state)
    if failed is not None and what_hinders(state, failed, last_seq=None) is None:
        return StepRedriven(run_id=run.id, seq=failed.seq, attempt=failed.attempt)
    return TurnRedriven(run_id=run.id, task_id=turn_id(run.id, run.turn_no))


def _last_failed(state: RunState) -> Checkpoint | None:
    failed = (
        each
        for each in state.checkpoints.values()
        if each.kind is HistoryKind.CALL and each.status is CheckpointStatus.FAILED
        if each.error != GIVEN_UP
    )
    return max(failed, key=lambda each: each.order or 0, default=None)


def continuation_of(state: RunState, *, signal_id: str) -> list[Unparked | SignalSent] | Refusal:
    """Let a run go on that is parked, or that rests at breakpoints."""
    run = state.run
    if run.status is RunStatus.BLOCKED:
        return [Unparked(run_id=run.id)]
    names = [
        each.name
        for seq, each in sorted(state.pending.items())
        if each.kind is HistoryKind.SIGNAL and each.name == breakpoint_signal(run.id, seq)
    ]
    if not names:
        return Refusal(
            f"run {run.id!r} is {run.status.value}, and rests at no breakpoint. "
            f"`durable-worker retry {run.id}` takes up a run that has failed"
        )
    return [
        SignalSent(signal_id=f"{signal_id}/{name}", namespace=run.namespace, name=name)
        for name in names
    ]


def set_going(
    state: RunState, asked: RetryRun | ContinueRun, *, signal_id: str
) -> Sequence[RunInput | SignalSent]:
    """What to apply for a request. Raises `NotStoppedError`."""
    is_retry = isinstance(asked, RetryRun)
    found = retry_of(state) if is_retry else continuation_of(state, signal_id=signal_id)
    if isinstance(found, Refusal):
        raise NotStoppedError(state.run.id, found.reason)
    return found if isinstance(found, list) else [found]
