"""Tasks that a worker cannot read: answered where they name a step or turn, and laid aside."""

from functools import partial

import structlog

from durable_worker.errors import ProtocolError
from durable_worker.protocol.codec import Addressee, addressee_of
from durable_worker.protocol.commands import DecisionStatus, WorkflowDecision
from durable_worker.protocol.results import ResultStatus, StepResult
from durable_worker.replay.failures import failure_of
from durable_worker.transports.base import Delivery
from durable_worker.transports.floods import Floods
from durable_worker.worker.answers import Answers

log = structlog.get_logger("durable_worker.worker")


class Refusals:
    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._told = Floods(
            partial(log.error, "message_refused"),
            lambda queue, count: log.error("messages_refused", queue=queue, count=count),
        )

    async def refuse(self, delivery: Delivery, error: ProtocolError) -> None:
        """Fail what the message names, so that no run hangs on it, and send it to the dead."""
        self._told.note(delivery.queue, reason=str(error))
        addressee = addressee_of(delivery.envelope.body)
        if addressee is not None:
            await self._fail(addressee, error)
        await self._answers.dead(delivery.envelope, str(error), queue=delivery.queue)
        await delivery.ack()

    def close(self) -> None:
        """Say how many were not told of one by one."""
        self._told.close()

    async def _fail(self, addressee: Addressee, error: ProtocolError) -> None:
        failure = failure_of(error, retryable=False)
        if addressee.task_id is not None:
            decision = WorkflowDecision(
                task_id=addressee.task_id,
                run_id=addressee.run_id,
                status=DecisionStatus.FAILED,
                commands=[],
                error=failure,
            )
            await self._answers.decision(decision)
        elif addressee.seq is not None and addressee.step_id is not None:
            result = StepResult(
                run_id=addressee.run_id,
                seq=addressee.seq,
                step_id=addressee.step_id,
                status=ResultStatus.FAILED,
                error=failure,
            )
            await self._answers.result(result, attempt=1)
