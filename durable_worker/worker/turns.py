"""Run turns: keep the bodies of recent runs, replay the others, run local steps in between."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import structlog

from durable_worker.clock import Clock, SystemClock
from durable_worker.errors import RegistrationError
from durable_worker.protocol.commands import DecisionStatus, RecordStep, WorkflowDecision
from durable_worker.protocol.tasks import WorkflowTask
from durable_worker.replay.context import WorkflowContext
from durable_worker.replay.failures import failure_of
from durable_worker.replay.logger import LogSink
from durable_worker.replay.operations import PARK, LocalStep, RunLocally
from durable_worker.replay.turn import Replay
from durable_worker.worker.determinism.checks import Checks, NoChecks
from durable_worker.worker.registry import Worker

KEPT_BYTES = 128 * 1024 * 1024
"""Bytes of history in the bodies that are kept, at the most."""

body_log: LogSink = structlog.get_logger("durable_worker.workflow")

LocalRunner = Callable[[WorkflowTask, LocalStep], Awaitable[RecordStep]]


class TurnRunner:
    """Answers workflow tasks with decisions.

    `kept` bounds how many suspended bodies stay in memory (0: every turn replays from the top).
    A kept body decides exactly what a replay from the top would (`Replay.can_continue`).
    """

    def __init__(
        self,
        worker: Worker,
        *,
        run_locally: LocalRunner,
        partition: str | None = None,
        kept: int = 1_000,
        checks: Checks | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._worker = worker
        self._run_locally = run_locally
        self._partition = partition
        self._limit = kept
        self._checks = checks or NoChecks()
        self._clock = clock or SystemClock()
        self._kept: OrderedDict[str, Replay] = OrderedDict()
        self._kept_bytes = 0

    async def decide(self, task: WorkflowTask) -> WorkflowDecision:
        try:
            definition = self._worker.workflow_named(task.workflow, task.workflow_version)
        except RegistrationError as error:
            return _refusal(task, error)
        replay = self._take_kept(task.run_id)
        if replay is None or not replay.can_continue(task):
            if replay is not None:
                replay.dispose()
            replay = self._checks.replay(definition, task, self._context)
        is_reusable = False
        begin = partial(replay.begin, task, now_ms=self._clock.now())
        try:
            outcome = self._checks.watched(task, replay, begin)
            while isinstance(outcome, RunLocally):
                go_on = partial(replay.go_on, await self._run_all(task, outcome.steps))
                outcome = self._checks.watched(task, replay, go_on)
            outcome = await self._checks.confirmed(outcome, task, replay)
            is_reusable = outcome.status is DecisionStatus.CONTINUE
            return outcome
        finally:
            if is_reusable:
                self._keep(task.run_id, replay)
            else:
                replay.dispose()

    async def _run_all(
        self, task: WorkflowTask, steps: tuple[LocalStep, ...]
    ) -> dict[int, RecordStep]:
        records: dict[int, RecordStep] = {}

        async def run(step: LocalStep) -> None:
            records[step.seq] = await self._run_locally(task, step)

        async with anyio.create_task_group() as group:
            for step in steps:
                group.start_soon(run, step)
        return records

    def close(self) -> None:
        while self._kept:
            self._kept.popitem()[1].dispose()

    def _keep(self, run_id: str, replay: Replay) -> None:
        previous = self._take_kept(run_id)
        if previous is not None:
            previous.dispose()
        self._kept[run_id] = replay
        self._kept_bytes += replay.journal.bytes
        while len(self._kept) > self._limit or self._kept_bytes > KEPT_BYTES:
            dropped = self._take_kept(next(iter(self._kept)))
            if dropped is not None:
                dropped.dispose()

    def _take_kept(self, run_id: str) -> Replay | None:
        replay = self._kept.pop(run_id, None)
        if replay is not None:
            self._kept_bytes -= replay.journal.bytes
        return replay

    def _context(self, replay: Replay, task: WorkflowTask) -> WorkflowContext:
        replay.log_sink = body_log
        return self._worker.new_context(replay, task, partition=self._partition)


def _refusal(task: WorkflowTask, error: RegistrationError) -> WorkflowDecision:
    return WorkflowDecision(
        task_id=task.task_id,
        run_id=task.run_id,
        status=DecisionStatus.FAILED,
        commands=[],
        error=failure_of(error, retryable=False),
        park=True if PARK in (task.capabilities or ()) and not task.cancel else None,
    )
