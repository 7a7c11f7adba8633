"""Recorded runs against the workflows of a worker."""

from durable_worker.errors import NondeterminismError
from durable_worker.protocol.tasks import WorkflowTask
from durable_worker.replay.checking import mismatch_of
from durable_worker.replay.context import WorkflowContext
from durable_worker.replay.timeline import RecordedRun
from durable_worker.replay.turn import Replay
from durable_worker.worker.registry import Worker


def mismatch_with(
    worker: Worker, recorded: RecordedRun, *, compares_end: bool = True
) -> NondeterminismError | None:
    """How the worker's code differs from what is recorded, None if it does not.

    Runs no step and no side effect. `compares_end`: also the output or failure of a run that has
    ended. Raises `RegistrationError` for a workflow or version that the worker does not have.
    """
    task = recorded.task
    definition = worker.workflow_named(task.workflow, task.workflow_version)

    def context(replay: Replay, task: WorkflowTask) -> WorkflowContext:
        return worker.new_context(replay, task)

    return mismatch_of(definition, recorded, context, compares_end=compares_end)
