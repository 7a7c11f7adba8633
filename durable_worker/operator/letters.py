"""Dead letters on their way in and out of the store."""

import hashlib

from msgspec.structs import replace

from durable_worker.operator.ledgers import Ledger
from durable_worker.operator.messages import Outgoing, message_for, step_row, turn_row
from durable_worker.operator.transitions.effects import Bury
from durable_worker.protocol.base import MAX_INTEGER, TOKEN_HEADER, UNVERIFIED_HEADER
from durable_worker.protocol.codec import MessageType, addressee_of
from durable_worker.protocol.names import Names
from durable_worker.stores.records import DeadLetter, OutboxRow, RunState
from durable_worker.transports.base import (
    DEATH_HEADER,
    DEATH_QUEUE_HEADER,
    ERROR_HEADER,
    ERROR_QUEUE_HEADER,
    Envelope,
)
from durable_worker.transports.dead_letters import clipped

_LONGEST_RUN_ID = 255
"""Bytes; no message could carry a longer one, so there is no such run."""


def letter_of(envelope: Envelope, *, received_at: int, names: Names) -> DeadLetter:
    digest = hashlib.blake2b(digest_size=16)
    # One that nobody has signed must not take the place of the one that it is a copy of.
    unverified = envelope.headers.get(UNVERIFIED_HEADER, "")
    for part in (envelope.type or "", envelope.message_id or "", *filter(None, [unverified])):
        digest.update(part.encode("utf-8", "replace") + b"\0")
    digest.update(envelope.body)
    named = addressee_of(envelope.body)
    is_known = named is not None and len(named.run_id.encode()) <= _LONGEST_RUN_ID
    run_id, seq, task_id = None, None, None
    if named is not None and is_known:
        run_id, seq, task_id = named.run_id, named.seq, named.task_id
    return DeadLetter(
        id=digest.hexdigest(),
        received_at=received_at,
        type=envelope.type,
        message_id=envelope.message_id,
        reason=clipped(envelope.headers.get(ERROR_HEADER) or _unexplained(envelope)),
        body=envelope.body,
        headers={key: value for key, value in envelope.headers.items() if key != TOKEN_HEADER},
        queue=_origin_of(envelope, names) or _queue_for(envelope.type, names),
        protocol=envelope.protocol,
        run_id=run_id,
        seq=None if seq is None or abs(seq) > MAX_INTEGER else seq,
        task_id=task_id,
        size=len(envelope.body),
    )


def _unexplained(envelope: Envelope) -> str:
    kind = envelope.type or "message"
    if UNVERIFIED_HEADER in envelope.headers:
        return f"nobody knows who sent this {kind}: {envelope.headers[UNVERIFIED_HEADER]}"
    return f"the broker gave up on this {kind}: it was delivered too often without being answered"


def _origin_of(envelope: Envelope, names: Names) -> str | None:
    """The queue of ours that the headers name; anybody can write headers."""
    headers = envelope.headers
    stated = headers.get(DEATH_QUEUE_HEADER) if DEATH_HEADER in headers else None
    for queue in (stated, headers.get(ERROR_QUEUE_HEADER)):
        if queue is not None and _is_ours(queue, names):
            return queue
    return None


def _is_ours(queue: str, names: Names) -> bool:
    if len(queue.encode("utf-8", "replace")) > _LONGEST_RUN_ID:
        return False
    return queue in _answers(names).values() or queue.startswith(names.tasks(""))


def _queue_for(message_type: str | None, names: Names) -> str | None:
    return _answers(names).get(message_type or "")


def _answers(names: Names) -> dict[str, str]:
    return {
        MessageType.STEP_RESULT: names.results,
        MessageType.WORKFLOW_DECISION: names.decisions,
        MessageType.STEP_EVENT: names.step_events,
        MessageType.START_RUN: names.start_run,
        MessageType.RUN_REQUEST: names.run_request,
    }


def lost_letter(ledger: Ledger, lost: Bury, *, now: int, names: Names) -> DeadLetter:
    """The message that nobody answered, made once more."""
    state = ledger.state
    run = replace(state.run, task_id=lost.task_id, status=lost.status)
    if lost.task_id is not None:
        row = turn_row(run.id, lost.task_id)
    else:
        assert lost.seq is not None
        row = step_row(run.id, lost.seq, lost.attempt)
    message = message_for(Ledger(RunState(run, state.checkpoints.values())), row, names=names)
    envelope = replace(message.envelope, headers={ERROR_HEADER: lost.reason})
    return replace(letter_of(envelope, received_at=now, names=names), queue=message.queue)


def letter_row(letter_id: str) -> OutboxRow:
    return OutboxRow(f"letter:{letter_id}", letter_id, attempt=0)


def letter_message(letter: DeadLetter, *, names: Names) -> Outgoing | None:
    """The message as it was before it died; None if nothing tells where it belongs."""
    queue = letter.queue or _queue_for(letter.type, names)
    if queue is None:
        return None
    envelope = Envelope(
        type=letter.type,
        body=letter.body,
        message_id=letter.message_id,
        protocol=letter.protocol,
        headers={key: value for key, value in letter.headers.items() if not _is_of_death(key)},
    )
    return Outgoing(letter_row(letter.id), "", queue, envelope)


def _is_of_death(header: str) -> bool:
    return header.startswith("x-") or header in (ERROR_HEADER, ERROR_QUEUE_HEADER)
