"""Messages from work queues to inputs; what cannot be understood goes to the dead queue."""

from collections.abc import Callable
from dataclasses import dataclass

from durable_worker.errors import ProtocolError, TenantTokenError
from durable_worker.operator.admission import Admission
from durable_worker.operator.jobs import Job
from durable_worker.operator.letters import letter_of
from durable_worker.operator.messages import turn_row
from durable_worker.protocol.base import PROTOCOL_VERSION, UNVERIFIED_HEADER
from durable_worker.protocol.codec import (
    START_RUN,
    STEP_RESULT,
    WORKFLOW_DECISION,
    WORKFLOW_TASK,
    MessageType,
    addressee_of,
)
from durable_worker.protocol.names import Names, attempt_in, step_id
from durable_worker.protocol.nesting import MAX_DEPTH, is_too_deep
from durable_worker.protocol.results import StepResult
from durable_worker.stores.base import stored_namespace
from durable_worker.stores.inputs import (
    AnyInput,
    DecisionReceived,
    ResultReceived,
    StartRun,
    StepPoisoned,
    TurnPoisoned,
)
from durable_worker.stores.letters import HARMLESS
from durable_worker.stores.records import LAST_SEQ, DeadLetter, OutboxRow
from durable_worker.stores.starts import LONGEST_ID, json_object
from durable_worker.transports.base import (
    DEATH_HEADER,
    ERROR_HEADER,
    RESENT_HEADER,
    Delivery,
    Envelope,
)
from durable_worker.transports.base import (
    DELIVERY_LIMIT as MOST_REDELIVERIES,
)
from durable_worker.transports.base import (
    DELIVERY_LIMIT_REASON as DELIVERY_LIMIT,
)
from durable_worker.transports.dead_letters import dead_letter


@dataclass(frozen=True, slots=True)
class Inlet:
    """Where intake hands on: jobs, deliveries that are done, and those that nobody can read."""

    offer: Callable[[Job], None]
    done: Callable[[Delivery], None]
    bury: Callable[[Delivery, str], None]


class Intake:
    """Handlers for deliveries. They never raise and never wait."""

    def __init__(
        self,
        inlet: Inlet,
        *,
        names: Names,
        partition: str | None,
        admission: Admission,
        new_id: Callable[[], str],
        now: Callable[[], int],
    ) -> None:
        self._inlet = inlet
        self._names = names
        self._partition = partition
        self._admission = admission
        self._new_id = new_id
        self._now = now
        self._readers: dict[str, Callable[[Envelope], AnyInput]] = {
            MessageType.STEP_RESULT: _result,
            MessageType.WORKFLOW_DECISION: _decision,
            MessageType.START_RUN: self._start,
        }

    def on_result(self, delivery: Delivery) -> None:
        self._take(delivery, MessageType.STEP_RESULT)

    def on_decision(self, delivery: Delivery) -> None:
        self._take(delivery, MessageType.WORKFLOW_DECISION)

    def on_start(self, delivery: Delivery) -> None:
        self._take(delivery, MessageType.START_RUN)

    def on_dead(self, delivery: Delivery) -> None:
        """Apply it if only the broker gave up on it; else keep it, and fail what it names.

        One that no holder of a key has signed is kept to be looked at: anybody can write such a
        letter, about any run. A turn with `since` has not died: it has not reached, or did not
        suit, the one worker that it was for.
        """
        row = _returned(delivery.envelope)
        if row is not None:
            self._inlet.offer(Job(resend=row, settle=lambda: self._inlet.done(delivery)))
            return
        value = self._still_good(delivery.envelope)
        if value is not None:
            self._inlet.offer(
                Job(
                    input=value,
                    settle=lambda: self._inlet.done(delivery),
                    refuse=lambda reason: self.keep(delivery, reason),
                )
            )
            return
        self._keep(delivery, self._letter(delivery.envelope))

    def keep(self, delivery: Delivery, reason: str) -> None:
        """A dead letter without a way over the dead queue."""
        envelope = dead_letter(delivery.envelope, reason)
        self._keep(delivery, self._letter(envelope))

    def _letter(self, envelope: Envelope) -> DeadLetter:
        return letter_of(envelope, received_at=self._now(), names=self._names)

    def _keep(self, delivery: Delivery, letter: DeadLetter) -> None:
        def settle() -> None:
            self._inlet.done(delivery)

        def without_verdict(_: str) -> None:
            self._inlet.offer(Job(letter=letter, settle=settle))

        verdict = _verdict(letter)
        refuse = None if verdict is None else without_verdict
        self._inlet.offer(Job(input=verdict, letter=letter, settle=settle, refuse=refuse))

    def _still_good(self, envelope: Envelope) -> AnyInput | None:
        """What a message says that operators died beside, of something else."""
        read = self._readers.get(envelope.type or "")
        if UNVERIFIED_HEADER in envelope.headers:
            return None
        if read is None or envelope.headers.get(DEATH_HEADER) != DELIVERY_LIMIT:
            return None
        try:
            check_protocol(envelope, envelope.type)
            return read(envelope)
        except ProtocolError:
            return None

    def _take(self, delivery: Delivery, kind: MessageType) -> None:
        try:
            check_protocol(delivery.envelope, kind)
            value = self._readers[kind](delivery.envelope)
        except ProtocolError as error:
            self._inlet.bury(delivery, str(error))
            return
        self._inlet.offer(
            Job(
                input=value,
                settle=lambda: self._inlet.done(delivery),
                refuse=lambda reason: self._inlet.bury(delivery, reason),
            )
        )

    def _start(self, envelope: Envelope) -> StartRun:
        message = START_RUN.decode(envelope.body)
        try:
            tenant = self._admission.tenant_of_start(envelope, message.tenant)
        except TenantTokenError as error:
            raise ProtocolError(MessageType.START_RUN, str(error)) from error
        for key, value in (("runId", message.run_id), ("tenant", tenant)):
            if value is not None and len(value.encode()) > LONGEST_ID:
                raise ProtocolError(
                    MessageType.START_RUN, f"`{key}` is longer than {LONGEST_ID} bytes"
                )
        return StartRun(
            # A redelivered message must not start a second run.
            run_id=message.run_id or envelope.message_id or self._new_id(),
            workflow=message.workflow,
            input=message.input,
            namespace=stored_namespace(tenant),
            partition=self._partition,
            tags=tuple(message.tags or ()),
            search_attributes=json_object(message.search_attributes),
        )


def _returned(envelope: Envelope) -> OutboxRow | None:
    """The turn that is owed again, whole, if this is one that tells only what is new."""
    headers = envelope.headers
    if envelope.type != MessageType.WORKFLOW_TASK or UNVERIFIED_HEADER in headers:
        return None
    if ERROR_HEADER in headers and DEATH_HEADER not in headers:
        return None  # a worker could not read it
    try:
        check_protocol(envelope, MessageType.WORKFLOW_TASK)
        task = WORKFLOW_TASK.decode(envelope.body)
    except ProtocolError:
        return None
    return None if task.since is None else turn_row(task.run_id, task.task_id)


def check_protocol(envelope: Envelope, expected: str | None) -> None:
    """Raises `ProtocolError` for a major version that this operator does not speak, for a type that
    belongs elsewhere, and for what could not be read any more within another message."""
    if is_too_deep(envelope.body):
        raise ProtocolError(
            envelope.type or "untyped", f"it is nested more than {MAX_DEPTH} levels deep"
        )
    if envelope.type is not None and envelope.type != expected:
        raise ProtocolError(envelope.type, f"its type does not belong here, {expected} does")
    if envelope.protocol not in (None, PROTOCOL_VERSION):
        raise ProtocolError(
            envelope.type or "untyped",
            f"header durable-protocol is {envelope.protocol}, understood is {PROTOCOL_VERSION}",
        )


def _result(envelope: Envelope) -> ResultReceived:
    result = STEP_RESULT.decode(envelope.body)
    return ResultReceived(
        run_id=result.run_id, result=result, attempt=_attempt(result, envelope.message_id)
    )


def _attempt(result: StepResult, message_id: str | None) -> int | None:
    return attempt_in(message_id, step=step_id(result.run_id, result.seq))


def _decision(envelope: Envelope) -> DecisionReceived:
    decision = WORKFLOW_DECISION.decode(envelope.body)
    return DecisionReceived(run_id=decision.run_id, decision=decision)


def _verdict(letter: DeadLetter) -> AnyInput | None:
    """What a dead message fails; None if it names no step and no turn."""
    if letter.type in HARMLESS or UNVERIFIED_HEADER in letter.headers:
        return None
    addressee = addressee_of(letter.body)
    if addressee is None:
        return None
    is_suspicion = letter.headers.get(DEATH_HEADER) == DELIVERY_LIMIT
    deliveries = 1 + MOST_REDELIVERIES if is_suspicion else None
    if addressee.task_id is not None:
        return TurnPoisoned(
            run_id=addressee.run_id,
            task_id=addressee.task_id,
            reason=letter.reason,
            is_suspicion=is_suspicion,
            deliveries=deliveries,
            letter=letter.id,
        )
    if addressee.seq is None or addressee.seq > LAST_SEQ:
        return None
    step = step_id(addressee.run_id, addressee.seq)
    return StepPoisoned(
        run_id=addressee.run_id,
        seq=addressee.seq,
        reason=letter.reason,
        attempt=attempt_in(letter.message_id, step=step),
        is_suspicion=is_suspicion,
        recoveries=_times_resent(letter),
        deliveries=deliveries,
        letter=letter.id,
    )


def _times_resent(letter: DeadLetter) -> int:
    times = letter.headers.get(RESENT_HEADER, "0")
    return int(times) if times.isdecimal() and len(times) < 5 else 0
