"""Answer the turns that a worker is given."""

import logging
from collections.abc import Callable
from functools import partial

import structlog
from msgspec.structs import replace

from durable_worker.edge.errors import BlobStoreError, SealError
from durable_worker.protocol.commands import DecisionStatus, WorkflowDecision
from durable_worker.protocol.growing import TurnReader
from durable_worker.protocol.tasks import WorkflowTask
from durable_worker.replay.diff import Mismatch, mismatch_in
from durable_worker.transports.base import Delivery
from durable_worker.worker.answers import Answers
from durable_worker.worker.edge import WorkerEdge, seal_failed
from durable_worker.worker.live import LiveReports
from durable_worker.worker.own_turns import OwnTurns
from durable_worker.worker.posting import Posting, WorkCrew
from durable_worker.worker.quarantine import Quarantine
from durable_worker.worker.registry import Worker
from durable_worker.worker.step_context import enter_turn
from durable_worker.worker.step_lines import levels_of
from durable_worker.worker.turns import TurnRunner

log = structlog.get_logger("durable_worker.worker")


class TurnTasks:
    """`is_stopping`: turns that have not begun go back to their queues."""

    def __init__(
        self,
        worker: Worker,
        turns: TurnRunner,
        *,
        reader: TurnReader,
        answers: Answers,
        edge: WorkerEdge,
        live: LiveReports,
        quarantine: Quarantine,
        own_turns: OwnTurns,
        crew: WorkCrew,
        is_stopping: Callable[[], bool],
    ) -> None:
        interception = worker.interception
        self._decide = (
            turns.decide if interception is None else interception.around_turns(turns.decide)
        )
        self._reader = reader
        self._answers = answers
        self._edge = edge
        self._live = live
        self._quarantine = quarantine
        self._own_turns = own_turns
        self._crew = crew
        self._is_stopping = is_stopping
        self._log = log.bind()
        self._is_told = levels_of(self._log)

    async def handle(self, task: WorkflowTask, delivery: Delivery) -> None:
        """Decide the turn, publish its decision, acknowledge."""
        if task.since is not None:
            await self._send_back(task, delivery)
            return
        enter_turn(task.workflow, task.run_id)
        self._live.started(task.task_id, task)
        try:
            async with self._quarantine.admission(delivery):
                if self._is_stopping():
                    await delivery.release()
                    return
                decision, sealed = await self._decided(task, delivery.envelope.body)
        finally:
            self._live.ended(task.task_id)
        if decision.status is DecisionStatus.CONTINUE:
            kept_by = self._own_turns.keeper_for(task, decision)
            if kept_by is not None:
                sealed = replace(sealed, kept=kept_by)
            self._reader.keep(task)
        self._tell(task, decision)
        again = partial(self._answers.decision, sealed)
        posting = Posting(self._crew, (delivery,), again)
        if self._answers.post_decision(sealed, posting.told):
            self._crew.expect(posting)
            return
        await self._answers.decision(sealed)
        await delivery.ack()

    async def _send_back(self, task: WorkflowTask, delivery: Delivery) -> None:
        """What it adds to is not kept here any more: the operator sends the whole history."""
        self._log.debug("turn_sent_back", run_id=task.run_id, since=task.since)
        await self._answers.back(delivery.envelope)
        await delivery.ack()

    async def _decided(
        self, task: WorkflowTask, body: bytes
    ) -> tuple[WorkflowDecision, WorkflowDecision]:
        """The decision as it was made, and as it travels."""
        try:
            opened = await self._edge.open_turn(task, body)
            decision = await self._decide(opened)
            return decision, await self._edge.seal_decision(decision, opened)
        except BlobStoreError:
            raise  # the store may come back, a failed decision would end the run for good
        except SealError as error:
            failed = WorkflowDecision(
                task_id=task.task_id,
                run_id=task.run_id,
                status=DecisionStatus.FAILED,
                commands=[],
                error=seal_failed(error),
            )
            return failed, failed

    def _tell(self, task: WorkflowTask, decision: WorkflowDecision) -> None:
        is_failed = decision.status is DecisionStatus.FAILED
        if not is_failed and not self._is_told(logging.DEBUG):
            return
        tell = self._log.warning if is_failed else self._log.debug
        tell(
            "turn_decided",
            run_id=task.run_id,
            workflow=task.workflow,
            status=decision.status.value,
            commands=len(decision.commands),
            **({} if decision.error is None else _details(decision)),
        )


def _details(decision: WorkflowDecision) -> dict[str, str | Mismatch]:
    assert decision.error is not None
    mismatch = mismatch_in(decision.error)
    headline = decision.error.message.partition("\n")[0]
    return {"error": headline, **({} if mismatch is None else {"mismatch": mismatch})}
