"""Turns of the runs that this worker keeps, over a queue of its own (protocol/README.md,
"History deltas")."""

from collections.abc import Callable

import anyio
import structlog

from durable_worker.errors import BrokerRefusedError
from durable_worker.protocol.commands import DecisionStatus, WorkflowDecision
from durable_worker.protocol.growing import History
from durable_worker.protocol.names import Names
from durable_worker.protocol.tasks import WorkflowTask
from durable_worker.replay.operations import HISTORY_DELTAS
from durable_worker.transports.base import Delivery, Subscription, Transport

log = structlog.get_logger("durable_worker.worker")


class OwnTurns:
    """`run` opens the queue once `wants` has seen a history for which it is worth it."""

    def __init__(
        self,
        transport: Transport,
        names: Names,
        *,
        instance_id: str,
        accept: Callable[[Delivery], None],
        prefetch: int,
        from_bytes: int,
    ) -> None:
        self._transport = transport
        self._queue = names.turns(instance_id)
        self._instance_id = instance_id
        self._accept = accept
        self._prefetch = prefetch
        self._from_bytes = from_bytes
        self._wanted = anyio.Event()
        self._subscription: Subscription | None = None
        self._is_over = False

    def keeper_for(self, task: WorkflowTask, decision: WorkflowDecision) -> str | None:
        """What to say in `kept`: this worker, if the next turn may come to it."""
        if decision.status is not DecisionStatus.CONTINUE:
            return None
        if HISTORY_DELTAS not in (task.capabilities or ()):
            return None
        history = task.history
        if not isinstance(history, History) or history.size < self._from_bytes:
            return None
        if self._subscription is None:
            self._wanted.set()
            return None
        return None if self._is_over else self._instance_id

    async def run(self) -> None:
        await self._wanted.wait()
        if self._is_over:
            return
        try:
            subscription = await self._transport.consume(
                [self._queue], self._accept, prefetch=self._prefetch
            )
        except BrokerRefusedError as error:
            log.warning(
                "own_queue_refused",
                queue=self._queue,
                reason=str(error),
                hint="turns come with their whole history; let this user read and configure it",
            )
            return
        self._subscription = subscription
        if self._is_over:
            await subscription.stop()

    async def stop(self) -> None:
        """Take nothing more; what still comes goes back to the operator."""
        self._is_over = True
        if self._subscription is not None:
            await self._subscription.stop()
