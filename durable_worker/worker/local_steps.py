"""Steps that run inside the turn that asked for them, and are recorded with its decision."""

import anyio
import structlog

from durable_worker.clock import Clock
from durable_worker.edge.errors import SealError
from durable_worker.protocol.commands import RecordStep
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.names import step_id
from durable_worker.protocol.results import StepPhase, WorkflowStepEvent
from durable_worker.protocol.retry import delay_before_next, may_retry
from durable_worker.protocol.tasks import StepTask, WorkflowTask
from durable_worker.replay.definitions import StepDefinition
from durable_worker.replay.opened import context_of
from durable_worker.replay.operations import LocalStep
from durable_worker.worker.answers import Answers
from durable_worker.worker.attempts import Attempts
from durable_worker.worker.edge import WorkerEdge, with_context
from durable_worker.worker.invoke import Returned, outcome_of
from durable_worker.worker.posting import WorkCrew
from durable_worker.worker.step_context import StepContext

log = structlog.get_logger("durable_worker.worker")


class LocalSteps:
    def __init__(
        self,
        attempts: Attempts,
        *,
        answers: Answers,
        edge: WorkerEdge,
        clock: Clock,
        crew: WorkCrew,
    ) -> None:
        self._attempts = attempts
        self._answers = answers
        self._edge = edge
        self._clock = clock
        self._crew = crew

    async def run(self, task: WorkflowTask, operation: LocalStep) -> RecordStep:
        """Run it with its own retry policy, and stream its life."""
        definition = operation.definition
        assert definition is not None
        event = WorkflowStepEvent(
            run_id=task.run_id,
            seq=operation.seq,
            name=definition.name,
            phase=StepPhase.RUNNING,
            started_at=self._clock.now(),
        )
        await self._tell(event)
        attempt = 1
        while True:
            local = with_context(
                _local_task(task, operation, definition, attempt), context_of(task)
            )
            returned, context = await self._attempts.run(
                definition, local, is_given_up=lambda: self._crew.is_ending
            )
            options = definition.retry.options() if definition.retry else None
            if not isinstance(returned, Failure) or not may_retry(
                options, returned, attempt=attempt
            ):
                break
            assert options is not None
            delay = delay_before_next(options, attempt=attempt, key=local.step_id)
            await anyio.sleep(delay / 1000)
            attempt += 1
        return await self._record(event, returned, context)

    async def _record(
        self, started: WorkflowStepEvent, returned: Returned, context: StepContext
    ) -> RecordStep:
        output, error = outcome_of(returned)
        record = RecordStep(
            seq=started.seq,
            name=started.name,
            started_at=started.started_at,
            finished_at=self._clock.now(),
            events=context.final_events(),
            output=output,
            error=error,
        )
        await self._tell(
            WorkflowStepEvent(
                run_id=started.run_id,
                seq=started.seq,
                name=started.name,
                phase=StepPhase.COMPLETED if error is None else StepPhase.FAILED,
                started_at=started.started_at,
                finished_at=record.finished_at,
                output=output,
                error=error,
            )
        )
        return record

    async def _tell(self, event: WorkflowStepEvent) -> None:
        try:
            sealed = await self._edge.seal_step_event(event)
        except SealError as error:
            # For display only; the decision says why it could not be recorded.
            log.debug("step_event_lost", run_id=event.run_id, seq=event.seq, reason=str(error))
            return
        await self._answers.step_event(sealed)


def _local_task(
    task: WorkflowTask, operation: LocalStep, definition: StepDefinition, attempt: int
) -> StepTask:
    return StepTask(
        run_id=task.run_id,
        seq=operation.seq,
        name=definition.name,
        step_id=step_id(task.run_id, operation.seq),
        group=task.group,
        input=operation.input,
        attempt=attempt,
        traceparent=task.traceparent,
    )
