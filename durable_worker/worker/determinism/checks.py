"""What a worker does about bodies that are not deterministic, by policy.

`WARN` costs nothing but the watch of sampled turns; what `RAISE` needs besides is imported for it.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from durable_worker.protocol.commands import WorkflowDecision
from durable_worker.protocol.tasks import WorkflowTask
from durable_worker.replay.definitions import WorkflowDefinition
from durable_worker.replay.turn import ContextFactory, Outcome, Replay
from durable_worker.worker.determinism.policy import Determinism
from durable_worker.worker.registry import Worker


class Checks(Protocol):
    def replay(
        self, definition: WorkflowDefinition, task: WorkflowTask, context_factory: ContextFactory
    ) -> Replay:
        """A body to check."""
        ...

    def watched(self, task: WorkflowTask, replay: Replay, turn: Callable[[], Outcome]) -> Outcome:
        """The outcome of `turn`, which drives `replay`."""
        ...

    async def confirmed(
        self, decision: WorkflowDecision, task: WorkflowTask, replay: Replay
    ) -> WorkflowDecision:
        """`decision`, or one that fails the run because a second replay decides otherwise."""
        ...

    async def serve(self) -> None:
        """Have ready what the checks need, until cancelled."""
        ...


class NoChecks:
    def replay(
        self, definition: WorkflowDefinition, task: WorkflowTask, context_factory: ContextFactory
    ) -> Replay:
        return Replay(definition, task, context_factory)

    def watched(self, task: WorkflowTask, replay: Replay, turn: Callable[[], Outcome]) -> Outcome:  # noqa: ARG002
        return turn()

    async def confirmed(
        self,
        decision: WorkflowDecision,
        task: WorkflowTask,  # noqa: ARG002
        replay: Replay,  # noqa: ARG002
    ) -> WorkflowDecision:
        return decision

    async def serve(self) -> None:
        pass


def checks_for(
    worker: Worker,
    determinism: Determinism,
    *,
    shadow: Sequence[str] | None = None,
    partition: str | None = None,
) -> Checks:
    """`shadow` is the command line of a process that replays turns of `worker`: cli/shadow.py."""
    if determinism is Determinism.OFF or not worker.workflows:
        return NoChecks()
    from durable_worker.worker.determinism.calls import CallChecks

    if determinism is Determinism.WARN:
        return CallChecks(worker, is_raising=False)
    from durable_worker.worker.determinism.twice import TwiceChecks

    return TwiceChecks(worker, shadow, partition)
