"""What the parts of the context share. Their public methods are grouped by module, not by class:
a body sees them all on one `WorkflowContext`."""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from durable_worker.errors import RegistrationError
from durable_worker.protocol.names import DEFAULT_PARTITION
from durable_worker.protocol.payload import PayloadDecoder, decoder_for
from durable_worker.protocol.tasks import WorkflowTask
from durable_worker.replay.arguments import checked_name, not_registered
from durable_worker.replay.definitions import Directory, StepDefinition
from durable_worker.replay.operations import Location
from durable_worker.replay.turn import Replay

T = TypeVar("T")

Operation = Coroutine[Any, Any, T]
"""Takes effect when it is awaited or wrapped into a task, like any coroutine."""


class ContextBase:
    def __init__(
        self,
        replay: Replay,
        task: WorkflowTask,
        directory: Directory,
        *,
        partition: str | None = None,
    ) -> None:
        self._replay = replay
        self._journal = replay.journal
        self._task = task
        self._directory = directory
        self._partition = partition or DEFAULT_PARTITION
        self.run_id = task.run_id
        self.workflow = task.workflow
        self.version = task.workflow_version

    def _step_definition(self, step: Callable[..., Any]) -> StepDefinition:
        definition = self._directory.step_of(step)
        if definition is None:
            raise RegistrationError(not_registered("step", step))
        return definition

    def _workflow_named(self, workflow: Any, returns: Any) -> tuple[str, PayloadDecoder[Any]]:
        """The name of a workflow, and what reads its output."""
        if isinstance(workflow, str):
            return checked_name(workflow, "workflow"), decoder_for(returns)
        definition = self._directory.workflow_of(workflow)
        if definition is None:
            raise RegistrationError(not_registered("workflow", workflow))
        return definition.name, definition.output_decoder

    def _called(
        self, token: int, operation: Operation[T], method: str, name: str, location: Location
    ) -> Operation[T]:
        """Note an operation that has to be awaited, so that a forgotten `await` can be named."""
        self._journal.called(token, operation, method, name, location)
        return operation
