"""Records to rows of the schema and back, column by column.

Text is kept as its UTF-8, and compared by that: nothing is folded, padded or cut.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from durable_worker.protocol.base import Payload
from durable_worker.protocol.commands import RetryOptions
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.results import StepEvent
from durable_worker.protocol.runs import RunStatus
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.attributes import own_tags, stored_tags
from durable_worker.stores.mysql.statements import Row, Value
from durable_worker.stores.records import (
    Checkpoint,
    CheckpointStatus,
    DeadLetter,
    OutboxRow,
    Parent,
    Run,
    SignalRecord,
)

Found = Sequence[Any]
"""A row as the driver gives it: numbers, None, and bytes for everything else."""

_encode = msgspec.json.Encoder().encode
_failures = msgspec.json.Decoder(Failure)
_retries = msgspec.json.Decoder(RetryOptions)
_events = msgspec.json.Decoder(tuple[StepEvent, ...])
_texts = msgspec.json.Decoder(str)
_headers = msgspec.json.Decoder(dict[str, str])
_run_statuses = {each.value.encode(): each for each in RunStatus}
_statuses = {each.value.encode(): each for each in CheckpointStatus}
_kinds = {each.value.encode(): each for each in HistoryKind}


def _bytes(payload: Payload) -> bytes | None:
    return None if isinstance(payload, UnsetType) else bytes(payload)


def _payload(stored: bytes | None) -> Payload:
    return UNSET if stored is None else Raw(stored)


def _text(stored: bytes | None) -> str | None:
    return None if stored is None else stored.decode()


def tag_mark(tag: str) -> bytes:
    """What is among the stored tags if, and only if, this is one of them: JSON has no line breaks
    within a string."""
    return b"\n%b\n" % _encode(tag)


def _tags_in(tags: Sequence[str]) -> bytes:
    return b"\n%b\n" % b"\n".join(map(_encode, tags)) if tags else b""


def tags_out(stored: bytes) -> tuple[str, ...]:
    return tuple(_texts.decode(each) for each in stored.split(b"\n") if each)


def row_of_run(run: Run) -> Row:
    is_turn_out = run.task_id is not None and not run.status.is_terminal
    is_unserved = run.version is None and run.status is RunStatus.PENDING
    return (
        run.id,
        run.workflow,
        run.version,
        run.namespace,
        run.partition,
        run.status,
        _bytes(run.input),
        _bytes(run.output),
        None if run.error is None else _encode(run.error),
        None if run.parent is None else run.parent.run_id,
        None if run.parent is None else run.parent.seq,
        _tags_in(stored_tags(run)),
        _bytes(run.search_attributes),
        run.created_at,
        run.updated_at,
        run.turn_no,
        run.task_id,
        run.is_dirty,
        run.recoveries,
        run.ordered,
        is_turn_out or None,
        is_unserved or None,
    )


def run_of_row(row: Found) -> Run:
    return Run(
        id=row[0].decode(),
        workflow=row[1].decode(),
        version=_text(row[2]),
        namespace=row[3].decode(),
        partition=_text(row[4]),
        status=_run_statuses[row[5]],
        input=_payload(row[6]),
        output=_payload(row[7]),
        error=None if row[8] is None else _failures.decode(row[8]),
        parent=None if row[9] is None else Parent(row[9].decode(), row[10]),
        tags=own_tags(tags_out(row[11]), _payload(row[12])) if row[11] else (),
        search_attributes=_payload(row[12]),
        created_at=row[13],
        updated_at=row[14],
        turn_no=row[15],
        task_id=_text(row[16]),
        is_dirty=bool(row[17]),
        recoveries=row[18],
        ordered=row[19],
    )


def row_of_checkpoint(checkpoint: Checkpoint, namespace: Value) -> Row:
    """`namespace`: of its run, if it waits for a signal."""
    is_pending = checkpoint.is_pending
    is_call = checkpoint.kind is HistoryKind.CALL
    return (
        checkpoint.run_id,
        checkpoint.seq,
        checkpoint.kind,
        checkpoint.name,
        checkpoint.status,
        _bytes(checkpoint.input),
        _bytes(checkpoint.output),
        None if checkpoint.error is None else _encode(checkpoint.error),
        checkpoint.attempt,
        None if checkpoint.retry is None else _encode(checkpoint.retry),
        checkpoint.partition,
        checkpoint.fires_at,
        checkpoint.enqueued_at,
        checkpoint.started_at,
        checkpoint.finished_at,
        _encode(checkpoint.events) if checkpoint.events else None,
        checkpoint.parallel_group,
        checkpoint.recoveries,
        checkpoint.order,
        checkpoint.fires_at if is_pending else None,
        (is_pending and is_call and checkpoint.is_out) or None,
        namespace if waits_for_signal(checkpoint) else None,
    )


def waits_for_signal(checkpoint: Checkpoint) -> bool:
    return checkpoint.is_pending and checkpoint.kind is HistoryKind.SIGNAL


def checkpoint_of_row(row: Found) -> Checkpoint:
    return Checkpoint(
        run_id=row[0].decode(),
        seq=row[1],
        kind=_kinds[row[2]],
        name=row[3].decode(),
        status=_statuses[row[4]],
        input=_payload(row[5]),
        output=_payload(row[6]),
        error=None if row[7] is None else _failures.decode(row[7]),
        attempt=row[8],
        retry=None if row[9] is None else _retries.decode(row[9]),
        partition=_text(row[10]),
        fires_at=row[11],
        enqueued_at=row[12],
        started_at=row[13],
        finished_at=row[14],
        events=() if row[15] is None else _events.decode(row[15]),
        parallel_group=_text(row[16]),
        recoveries=row[17],
        order=row[18],
    )


def row_of_signal(signal: SignalRecord) -> Row:
    return (
        signal.id,
        signal.namespace,
        signal.name,
        _bytes(signal.payload),
        signal.received_at,
        signal.consumed_at,
    )


def signal_of_row(row: Found) -> SignalRecord:
    return SignalRecord(
        id=row[0].decode(),
        namespace=row[1].decode(),
        name=row[2].decode(),
        payload=_payload(row[3]),
        received_at=row[4],
        consumed_at=row[5],
    )


def row_of_outbox(row: OutboxRow) -> Row:
    return row.key, row.run_id, row.seq, row.attempt


def outbox_of_row(row: Found) -> OutboxRow:
    return OutboxRow(row[0].decode(), row[1].decode(), row[2], row[3])


def row_of_letter(letter: DeadLetter) -> Row:
    return (
        letter.id,
        letter.received_at,
        letter.type,
        letter.message_id,
        letter.reason,
        letter.body,
        _encode(letter.headers),
        letter.queue,
        letter.protocol,
        letter.namespace,
        letter.run_id,
        letter.seq,
        letter.task_id,
        letter.size,
        letter.last_seq,
        letter.redriven_at,
        letter.redrives,
    )


def letter_of_row(row: Found) -> DeadLetter:
    return DeadLetter(
        id=row[0].decode(),
        received_at=row[1],
        type=_text(row[2]),
        message_id=_text(row[3]),
        reason=row[4].decode(),
        body=row[5],
        headers=_headers.decode(row[6]),
        queue=_text(row[7]),
        protocol=row[8],
        namespace=row[9].decode(),
        run_id=_text(row[10]),
        seq=row[11],
        task_id=_text(row[12]),
        size=row[13],
        last_seq=row[14],
        redriven_at=row[15],
        redrives=row[16],
    )
