"""Every turn is replayed a second time, and must come out the same."""

from collections.abc import Sequence

import structlog
from msgspec import UNSET

from durable_worker.errors import NondeterministicCallError, ReplayDivergedError
from durable_worker.protocol.commands import DecisionStatus, WorkflowDecision
from durable_worker.protocol.tasks import WorkflowTask
from durable_worker.replay.definitions import WorkflowDefinition
from durable_worker.replay.failures import failure_of
from durable_worker.replay.opened import context_of
from durable_worker.replay.turn import ContextFactory, Replay
from durable_worker.worker.determinism.calls import CallChecks
from durable_worker.worker.determinism.differences import differences
from durable_worker.worker.determinism.rehearsal import (
    Conditions,
    NotedReplay,
    Turn,
    rehearse,
    turn_of,
)
from durable_worker.worker.determinism.shadow import Shadow
from durable_worker.worker.registry import Worker

log = structlog.get_logger("durable_worker.worker")

_HERE = "with another state of the global random"
_ELSEWHERE = "in another process with another hash seed, clock and state of the global random"


class TwiceChecks(CallChecks):
    """Also watches every turn. `shadow` is the command line of the process that replays them; where
    there is none, they are replayed here, with the same clock and hash seed."""

    def __init__(self, worker: Worker, shadow: Sequence[str] | None, partition: str | None) -> None:
        super().__init__(worker, is_raising=True)
        self._partition = partition
        self._shadow = Shadow(shadow) if shadow else None

    def replay(
        self, definition: WorkflowDefinition, task: WorkflowTask, context_factory: ContextFactory
    ) -> Replay:
        return NotedReplay(definition, task, context_factory)

    async def confirmed(
        self, decision: WorkflowDecision, task: WorkflowTask, replay: Replay
    ) -> WorkflowDecision:
        if isinstance(replay.journal.failure, NondeterministicCallError):
            return decision
        assert isinstance(replay, NotedReplay)
        context = context_of(task)
        conditions = Conditions(
            task,
            replay.now_ms,
            list(replay.journal.recorded),
            self._partition,
            UNSET if context is None else context,
        )
        first = turn_of(replay, decision)
        second = await self._elsewhere(conditions)
        where = _ELSEWHERE
        if second is None:
            second, where = rehearse(replay.definition, replay.context_factory, conditions), _HERE
        found = differences(first, second)
        if not found:
            return decision
        error = ReplayDivergedError(task.workflow, differences=found, conditions=where)
        log.error(
            "replay_diverged",
            run_id=task.run_id,
            workflow=task.workflow,
            version=task.workflow_version,
            hint=str(error),
        )
        return WorkflowDecision(
            task_id=task.task_id,
            run_id=task.run_id,
            status=DecisionStatus.FAILED,
            commands=[],
            error=failure_of(error, retryable=False),
        )

    async def serve(self) -> None:
        if self._shadow is not None:
            await self._shadow.serve()

    async def _elsewhere(self, conditions: Conditions) -> Turn | None:
        return None if self._shadow is None else await self._shadow.rehearse(conditions)
