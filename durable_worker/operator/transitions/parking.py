"""Runs whose code has failed them: kept as they are, and tried again until the code is mended."""

from durable_worker.operator.transitions.draft import Draft, instant
from durable_worker.protocol.control import EngineEventType
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.runs import RunStatus
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.inputs import Unparked
from durable_worker.stores.records import PARKED_SEQ, Checkpoint, CheckpointStatus

FIRST_WAIT_MS = 10_000
LONGEST_WAIT_MS = 600_000
AT_LEAST_MS = 5_000
"""So long a run stays parked though a worker has come that may have other code."""


def park(draft: Draft, reason: Failure) -> None:
    """Nothing of the turn counts. The body gets the next one when its time has come."""
    before = draft.checkpoint(PARKED_SEQ)
    attempt = 1 if before is None else before.attempt + 1
    wait = min(FIRST_WAIT_MS * 2 ** min(attempt - 1, 16), LONGEST_WAIT_MS)
    draft.put(
        Checkpoint(
            run_id=draft.run.id,
            seq=PARKED_SEQ,
            kind=HistoryKind.TIMER,
            name="parked",
            status=CheckpointStatus.PENDING,
            attempt=attempt,
            fires_at=instant(draft.now + wait),
            enqueued_at=draft.now,
        )
    )
    draft.update(status=RunStatus.BLOCKED, error=reason, task_id=None, is_dirty=False, recoveries=0)
    draft.emit(EngineEventType.RUN_BLOCKED, error=reason)


def on_unparked(draft: Draft, asked: Unparked) -> None:
    timer = draft.checkpoint(PARKED_SEQ)
    if draft.run.status is not RunStatus.BLOCKED or timer is None:
        return
    if asked.is_guess and draft.now < timer.enqueued_at + AT_LEAST_MS:
        return
    draft.start_turn()


def forget_parking(draft: Draft) -> None:
    """A turn has succeeded."""
    if draft.checkpoint(PARKED_SEQ) is not None:
        draft.withdraw(PARKED_SEQ)
