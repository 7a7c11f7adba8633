"""A transition in the making, and the moves that all transitions share."""

from typing import Any

from msgspec import UNSET
from msgspec.structs import replace

from durable_worker.operator.transitions.effects import Effect, Emit, Limits, SendTurn, Transition
from durable_worker.protocol.base import Payload
from durable_worker.protocol.control import EngineEventType
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.runs import RunStatus
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.records import (
    LAST_INSTANT,
    PARKED_SEQ,
    Checkpoint,
    CheckpointStatus,
    RunState,
    turn_id,
)


def instant(at: int) -> int:
    """An instant from the wire or from arithmetic, held within what can be stored and shown."""
    return max(0, min(at, LAST_INSTANT))


def with_attempt_out(call: Checkpoint, *, now: int) -> Checkpoint:
    """An attempt at it leaves now: it is given up in time, if its policy says so."""
    limit = None if call.retry is None else call.retry.timeout_ms
    if limit is None:
        return replace(call, fires_at=None)
    return replace(call, fires_at=instant(now + limit), error=None)


class Draft:
    """Collects what changes on top of a state that stays as it is."""

    __slots__ = (
        "_changed",
        "_effects",
        "_last_order",
        "_state",
        "_withdrawn",
        "limits",
        "now",
        "run",
    )

    def __init__(self, state: RunState, *, now: int, limits: Limits) -> None:
        self._state = state
        self._changed: dict[int, Checkpoint] = {}
        self._withdrawn: set[int] = set()
        self._effects: list[Effect] = []
        self._last_order = state.last_order
        self.run = state.run
        self.now = now
        self.limits = limits

    def update(self, **changes: Any) -> None:
        self.run = replace(self.run, updated_at=self.now, **changes)

    @property
    def state(self) -> RunState:
        """As it was before."""
        return self._state

    def checkpoint(self, seq: int) -> Checkpoint | None:
        if self._withdrawn and seq in self._withdrawn:
            return None
        return self._changed.get(seq) or self._state.checkpoints.get(seq)

    def recorded_at(self, name: str) -> int | None:
        """The seq at which the body has recorded `name`."""
        found = (
            seq
            for seq, each in self._state.checkpoints.items()
            if each.kind is HistoryKind.STEP and each.name == name and seq not in self._withdrawn
        )
        return next(found, None)

    def put(self, checkpoint: Checkpoint) -> None:
        self._changed[checkpoint.seq] = checkpoint

    def withdraw(self, seq: int) -> None:
        """The body has never asked for this, as far as anybody shall know."""
        self._withdrawn.add(seq)
        self._changed.pop(seq, None)

    def cancelled(self) -> list[Checkpoint]:
        """In order of seq."""
        found = (self.checkpoint(seq) for seq in sorted(self._state.checkpoints))
        return [
            each for each in found if each is not None and each.status is CheckpointStatus.CANCELLED
        ]

    def pending(self) -> list[Checkpoint]:
        """In order of seq."""
        candidates = sorted({*self._state.pending, *self._changed})
        found = (self.checkpoint(seq) for seq in candidates)
        return [each for each in found if each is not None and each.is_pending]

    def pending_timers(self) -> list[Checkpoint]:
        """In order of seq."""
        changed = [seq for seq, each in self._changed.items() if each.is_timer]
        candidates = [*self._state.timers, *changed]
        if not candidates:
            return []
        found = (self.checkpoint(seq) for seq in sorted(set(candidates)))
        return [
            each
            for each in found
            if each is not None and each.is_pending and each.kind is HistoryKind.TIMER
        ]

    def has_pending(self) -> bool:
        for each in self._changed.values():
            if each.is_pending:
                return True
        return not self._state.pending.keys() <= self._changed.keys()

    def add(self, effect: Effect) -> None:
        self._effects.append(effect)

    def finish(self) -> Transition:
        run = None if self.run is self._state.run else self.run
        changed = tuple(self._changed.values())
        withdrawn = tuple(sorted(self._withdrawn)) if self._withdrawn else ()
        return Transition(run, changed, tuple(self._effects), withdrawn)

    def grow(self) -> None:
        """History has grown: the run needs a turn, or another one after the one that is out."""
        if self.run.status is RunStatus.BLOCKED:
            return  # its next turn will have it
        if self.run.task_id is None:
            self.start_turn()
        elif not self.run.is_dirty:
            self.update(is_dirty=True)

    def start_turn(self, *, recoveries: int = 0) -> None:
        turn_no = self.run.turn_no + 1
        task_id = turn_id(self.run.id, turn_no)
        parked = self.checkpoint(PARKED_SEQ)
        if parked is not None and parked.is_pending:
            # Whether this turn helps is not known yet, so the count stays.
            self.put(replace(parked, status=CheckpointStatus.CANCELLED, finished_at=self.now))
        self.update(
            status=self.live_status(RunStatus.RUNNING),
            error=None,
            turn_no=turn_no,
            task_id=task_id,
            is_dirty=False,
            recoveries=recoveries,
        )
        self.add(SendTurn(self.run.id, task_id))

    def live_status(self, status: RunStatus) -> RunStatus:
        """A run that is being cancelled says so until it ends."""
        is_cancelling = self.run.status is RunStatus.CANCELLING
        return RunStatus.CANCELLING if is_cancelling else status

    def resolve(
        self, checkpoint: Checkpoint, *, output: Payload = UNSET, error: Failure | None = None
    ) -> None:
        """End a pending operation for good; the run gets to see it."""
        self.settle(checkpoint, output=output, error=error)
        self.grow()

    def settle(
        self, checkpoint: Checkpoint, *, output: Payload = UNSET, error: Failure | None = None
    ) -> None:
        """As `resolve`, but no turn is needed for it."""
        self._last_order += 1
        self.put(
            replace(
                checkpoint,
                status=CheckpointStatus.COMPLETED if error is None else CheckpointStatus.FAILED,
                output=output,
                error=error,
                fires_at=checkpoint.fires_at if checkpoint.is_timer and error is None else None,
                finished_at=self.now,
                order=self._last_order,
            )
        )

    def emit(
        self,
        event_type: EngineEventType,
        *,
        call: Checkpoint | None = None,
        output: Payload = UNSET,
        error: Failure | None = None,
    ) -> None:
        run = self.run
        self._effects.append(
            Emit(event_type, run.id, run.workflow, run.namespace, self.now, call, output, error)
        )
