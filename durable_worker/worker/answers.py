"""Getting an answer to the operator, whatever the broker is doing."""

import asyncio

import anyio
import structlog
from msgspec import MsgspecError, structs

from durable_worker.clock import Chance
from durable_worker.errors import (
    ConnectionLostError,
    PayloadTooLargeError,
    PublishRejectedError,
    TransportError,
    UnroutableError,
)
from durable_worker.protocol.codec import MessageType, encode
from durable_worker.protocol.commands import DecisionStatus, WorkflowDecision
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.names import Names
from durable_worker.protocol.results import ResultStatus, StepResult, WorkflowStepEvent
from durable_worker.replay.failures import failure_of
from durable_worker.transports.base import (
    ERROR_QUEUE_HEADER,
    Envelope,
    PromptTransport,
    Told,
    Transport,
)
from durable_worker.transports.limits import SHORT_STRING_BYTES

log = structlog.get_logger("durable_worker.worker")

_NOT_ENCODABLE = (PayloadTooLargeError, UnicodeEncodeError, MsgspecError, OverflowError, TypeError)
"""No retry can help: the answer itself cannot be sent."""

_LONGEST_PAUSE_SECONDS = 10.0

_STEP_RESULT = MessageType.STEP_RESULT

_PASSING = (ConnectionLostError, UnroutableError, PublishRejectedError)


def _bare_failure(error: BaseException) -> Failure:
    """Without its stack, which is ours, so that it fits where the answer did not."""
    return structs.replace(failure_of(error, retryable=False), stack=None)


class Answers:
    """Publishes results and decisions; returns once the broker has taken responsibility."""

    def __init__(self, transport: Transport, names: Names, *, chance: Chance) -> None:
        self._transport = transport
        self._prompt = transport if isinstance(transport, PromptTransport) else None
        self._names = names
        self._chance = chance
        self._results = names.results
        self._decisions = names.decisions
        self._is_open = asyncio.Event()

    async def open(self) -> None:
        """Declare where answers go; until then they wait."""
        if self._is_open.is_set():
            return
        names = self._names
        await self._transport.declare(
            [names.results, names.decisions, names.step_events, names.dead]
        )
        self._is_open.set()

    def post_result(self, result: StepResult, *, attempt: int, told: Told) -> bool:
        """As `result`, but it is `told` that hears of the end; False, and nothing has happened, if
        it cannot go out at once."""
        prompt = self._prompt
        if prompt is None or not self._is_open.is_set():
            return False
        message_id = _carried(f"{result.step_id}:{attempt}")
        try:
            envelope = Envelope(_STEP_RESULT, encode(result), message_id)
            return prompt.post(self._results, envelope, told)
        except _NOT_ENCODABLE:
            return False

    async def result(
        self, result: StepResult, *, attempt: int, after: TransportError | None = None
    ) -> None:
        """`after`: why it has not arrived yet, as `post_result` has told."""
        message_id = _carried(f"{result.step_id}:{attempt}")
        try:
            envelope = Envelope(MessageType.STEP_RESULT, encode(result), message_id)
            await self._send(self._results, envelope, after=after)
        except _NOT_ENCODABLE as error:
            failed = StepResult(
                run_id=result.run_id,
                seq=result.seq,
                step_id=result.step_id,
                status=ResultStatus.FAILED,
                error=_bare_failure(error),
                started_at=result.started_at,
            )
            envelope = Envelope(MessageType.STEP_RESULT, encode(failed), message_id)
            await self._send(self._results, envelope)

    def post_decision(self, decision: WorkflowDecision, told: Told) -> bool:
        """As `post_result`."""
        if self._prompt is None or not self._is_open.is_set():
            return False
        message_id = _carried(decision.task_id)
        try:
            envelope = Envelope(MessageType.WORKFLOW_DECISION, encode(decision), message_id)
            return self._prompt.post(self._decisions, envelope, told)
        except _NOT_ENCODABLE:
            return False

    async def decision(
        self, decision: WorkflowDecision, *, after: TransportError | None = None
    ) -> None:
        """`after`: as for `result`."""
        message_id = _carried(decision.task_id)
        try:
            envelope = Envelope(MessageType.WORKFLOW_DECISION, encode(decision), message_id)
            await self._send(self._decisions, envelope, after=after)
        except _NOT_ENCODABLE as error:
            failed = WorkflowDecision(
                task_id=decision.task_id,
                run_id=decision.run_id,
                status=DecisionStatus.FAILED,
                commands=[],
                error=_bare_failure(error),
            )
            envelope = Envelope(MessageType.WORKFLOW_DECISION, encode(failed), message_id)
            await self._send(self._decisions, envelope)

    async def step_event(self, event: WorkflowStepEvent) -> None:
        envelope = Envelope(MessageType.STEP_EVENT, encode(event))
        try:
            await self._transport.send(self._names.step_events, envelope)
        except (*_PASSING, PayloadTooLargeError) as error:
            # Live information only: the recorded step rides on the decision.
            log.debug("step_event_lost", run_id=event.run_id, seq=event.seq, reason=str(error))

    async def dead(self, envelope: Envelope, reason: str, *, queue: str) -> None:
        """`queue`: where the message lay."""
        from durable_worker.transports.dead_letters import dead_letter

        letter = dead_letter(envelope, reason, **{ERROR_QUEUE_HEADER: queue})
        await self._send(self._names.dead, letter)

    async def _send(
        self, queue: str, envelope: Envelope, *, after: TransportError | None = None
    ) -> None:
        await self._is_open.wait()
        failures, error = 0, after
        while True:
            if error is not None:
                if not isinstance(error, _PASSING):
                    raise error
                log.warning(
                    "publish_retried",
                    queue=queue,
                    message_id=envelope.message_id,
                    reason=str(error),
                )
                failures += 1
                await anyio.sleep(self._pause(failures))
            try:
                if isinstance(error, UnroutableError):
                    await self._transport.declare([queue])
                return await self._transport.send(queue, envelope)
            except _PASSING as passing:
                error = passing

    def _pause(self, failures: int) -> float:
        bound = 0.1 * 2.0 ** min(failures - 1, 10)
        return min(_LONGEST_PAUSE_SECONDS, bound) * self._chance.fraction()


def _carried(message_id: str) -> str | None:
    """None for an id that no broker carries; the operator then asks for no attempt."""
    is_short = message_id.isascii() and len(message_id) <= SHORT_STRING_BYTES
    return message_id if is_short or len(message_id.encode()) <= SHORT_STRING_BYTES else None
