"""Turns and step tasks, built from the state of a run when they are sent."""

import msgspec
from msgspec import UNSET, Struct
from msgspec.structs import replace

from durable_worker.operator.ledgers import Addition, Ledger
from durable_worker.protocol.base import Attempt, Count, Message, Name, Payload
from durable_worker.protocol.codec import MessageType, encode
from durable_worker.protocol.names import Names, routing_token, step_id
from durable_worker.protocol.runs import RunStatus
from durable_worker.protocol.tasks import StepTask
from durable_worker.stores.records import UNORDERED, Checkpoint, OutboxRow, Run, RunState
from durable_worker.transports.base import RESENT_HEADER, Envelope

CAPABILITIES = [
    "call-retry",
    "call-timeout",
    "cancel-steps",
    "cancel-turns",
    "continue-as-new",
    "durable-timers",
    "history-deltas",
    "park",
    "search-attributes",
]
"""What this operator understands beyond the five v1 commands."""
ORDERED_CAPABILITIES = [*CAPABILITIES, "ordered-history"]
"""The same for a run whose results have been told in order from the first one on."""


class _BeforeHistory(Message, frozen=True, kw_only=True, gc=False):
    """What a `WorkflowTask` says before its history, and after it."""

    task_id: Name
    run_id: Name
    since: Name | None = None
    workflow: Name
    workflow_version: str
    input: Payload = UNSET


class _AfterHistory(Message, frozen=True, kw_only=True, gc=False):
    group: str
    attempt: Attempt
    capabilities: list[str] = msgspec.field(default_factory=list[str])
    cancel: bool | None = None
    seen: Count | None = None


class Outgoing(Struct, frozen=True, gc=False):
    """A message on its way to a work queue, and the outbox row that it settles.

    `is_addition`: a turn for the one worker that keeps what it adds to; if it does not arrive
    there, another one has to go to everybody.
    """

    row: OutboxRow
    token: str
    queue: str
    envelope: Envelope
    times_resent: int = 0
    is_addition: bool = False


def turn_row(run_id: str, task_id: str) -> OutboxRow:
    return OutboxRow(task_id, run_id)


def step_row(run_id: str, seq: int, attempt: int) -> OutboxRow:
    return OutboxRow(f"{step_id(run_id, seq)}:{attempt}", run_id, seq, attempt)


def owes(state: RunState, row: OutboxRow) -> bool:
    """Whether the run still waits for what this row promises to send."""
    if row.seq is None:
        return state.run.task_id == row.key
    call = state.pending.get(row.seq)
    return call is not None and call.attempt == row.attempt and call.is_out


def message_for(
    ledger: Ledger, row: OutboxRow, *, names: Names, is_repeated: bool = False
) -> Outgoing:
    """`is_repeated`: another copy of it may be out."""
    run = ledger.state.run
    if row.seq is None:
        token = routing_token(run.workflow, run.partition)
        # It cannot be told which copy of a repeated turn is answered, and they need not be alike.
        addition = ledger.sending(row.key, is_known=not is_repeated)
        if addition is not None:
            return _addition(ledger, row, addition, token=token, names=names)
        body, kind = _turn(ledger, token), MessageType.WORKFLOW_TASK
        times_resent = run.recoveries
    else:
        call = ledger.state.checkpoints[row.seq]
        times_resent = call.recoveries
        token = routing_token(call.name, call.partition)
        body, kind = encode(_step(run, call, token)), MessageType.STEP_TASK
    envelope = Envelope(type=kind, body=body, message_id=row.key)
    return Outgoing(row, token, names.tasks(token), envelope, times_resent)


def repeated(message: Outgoing) -> Outgoing:
    """The same message, told to be one that may have been sent before."""
    headers = {**message.envelope.headers, RESENT_HEADER: str(message.times_resent)}
    return replace(message, envelope=replace(message.envelope, headers=headers))


def _addition(
    ledger: Ledger, row: OutboxRow, addition: Addition, *, token: str, names: Names
) -> Outgoing:
    run = ledger.state.run
    before = _BeforeHistory(
        task_id=row.key,
        run_id=run.id,
        since=addition.since,
        workflow=run.workflow,
        workflow_version=run.version or "",
    )
    events = b",".join(addition.events)
    body = b"".join(
        (encode(before)[:-1], b',"history":[', events, b"],", encode(_after(run, token))[1:])
    )
    envelope = Envelope(type=MessageType.WORKFLOW_TASK, body=body, message_id=row.key)
    return Outgoing(row, token, names.turns(addition.keeper), envelope, is_addition=True)


def _turn(ledger: Ledger, token: str) -> bytes:
    """The encoded `WorkflowTask`: its history is JSON already, and may be long."""
    run = ledger.state.run
    assert run.task_id is not None
    before = _BeforeHistory(
        task_id=run.task_id,
        run_id=run.id,
        workflow=run.workflow,
        workflow_version=run.version or "",
        input=run.input,
    )
    with memoryview(ledger.history()) as history:
        return b"".join(
            (
                encode(before)[:-1],
                b',"history":[',
                history[:-1],
                b"],",
                encode(_after(run, token))[1:],
            )
        )


def _after(run: Run, token: str) -> _AfterHistory:
    is_ordered = run.ordered != UNORDERED
    return _AfterHistory(
        group=token,
        attempt=run.recoveries + 1,
        capabilities=ORDERED_CAPABILITIES if is_ordered else CAPABILITIES,
        cancel=True if run.status is RunStatus.CANCELLING else None,
        seen=run.ordered if is_ordered else None,
    )


def _step(run: Run, call: Checkpoint, token: str) -> StepTask:
    return StepTask(
        run_id=run.id,
        seq=call.seq,
        name=call.name,
        step_id=step_id(run.id, call.seq),
        group=token,
        input=call.input,
        attempt=call.attempt,
    )
