"""Records to rows of the schema and back, column by column."""

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
from durable_worker.stores.records import (
    Checkpoint,
    CheckpointStatus,
    DeadLetter,
    OutboxRow,
    Parent,
    Run,
    SignalRecord,
)

Row = tuple[Any, ...]

_encode = msgspec.json.Encoder().encode
_failures = msgspec.json.Decoder(Failure)
_retries = msgspec.json.Decoder(RetryOptions)
_events = msgspec.json.Decoder(tuple[StepEvent, ...])
_texts = msgspec.json.Decoder(tuple[str, ...])
_headers = msgspec.json.Decoder(dict[str, str])


def _bytes(payload: Payload) -> bytearray | None:
    # The driver binds a bytearray as it is, but looks for an adapter for each `bytes`.
    return None if isinstance(payload, UnsetType) else bytearray(payload)


def _json(value: object) -> bytearray:
    return bytearray(_encode(value))


def _payload(stored: bytes | None) -> Payload:
    return UNSET if stored is None else Raw(stored)


def row_of_run(run: Run) -> Row:
    return (
        run.id,
        run.workflow,
        run.version,
        run.namespace,
        run.partition,
        run.status.value,
        _bytes(run.input),
        _bytes(run.output),
        None if run.error is None else _json(run.error),
        None if run.parent is None else run.parent.run_id,
        None if run.parent is None else run.parent.seq,
        _encode(tags).decode() if (tags := stored_tags(run)) else "[]",
        _bytes(run.search_attributes),
        run.created_at,
        run.updated_at,
        run.turn_no,
        run.task_id,
        int(run.is_dirty),
        run.recoveries,
        run.ordered,
    )


def run_of_row(row: Row) -> Run:
    return Run(
        id=row[0],
        workflow=row[1],
        version=row[2],
        namespace=row[3],
        partition=row[4],
        status=RunStatus(row[5]),
        input=_payload(row[6]),
        output=_payload(row[7]),
        error=None if row[8] is None else _failures.decode(row[8]),
        parent=None if row[9] is None else Parent(row[9], row[10]),
        tags=own_tags(_texts.decode(row[11]), _payload(row[12])),
        search_attributes=_payload(row[12]),
        created_at=row[13],
        updated_at=row[14],
        turn_no=row[15],
        task_id=row[16],
        is_dirty=bool(row[17]),
        recoveries=row[18],
        ordered=row[19],
    )


def row_of_checkpoint(checkpoint: Checkpoint) -> Row:
    return (
        checkpoint.run_id,
        checkpoint.seq,
        checkpoint.kind.value,
        checkpoint.name,
        checkpoint.status.value,
        _bytes(checkpoint.input),
        _bytes(checkpoint.output),
        None if checkpoint.error is None else _json(checkpoint.error),
        checkpoint.attempt,
        None if checkpoint.retry is None else _json(checkpoint.retry),
        checkpoint.partition,
        checkpoint.fires_at,
        checkpoint.enqueued_at,
        checkpoint.started_at,
        checkpoint.finished_at,
        _json(checkpoint.events) if checkpoint.events else None,
        checkpoint.parallel_group,
        checkpoint.recoveries,
        checkpoint.order,
    )


def checkpoint_of_row(row: Row) -> Checkpoint:
    return Checkpoint(
        run_id=row[0],
        seq=row[1],
        kind=HistoryKind(row[2]),
        name=row[3],
        status=CheckpointStatus(row[4]),
        input=_payload(row[5]),
        output=_payload(row[6]),
        error=None if row[7] is None else _failures.decode(row[7]),
        attempt=row[8],
        retry=None if row[9] is None else _retries.decode(row[9]),
        partition=row[10],
        fires_at=row[11],
        enqueued_at=row[12],
        started_at=row[13],
        finished_at=row[14],
        events=() if row[15] is None else _events.decode(row[15]),
        parallel_group=row[16],
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


def signal_of_row(row: Row) -> SignalRecord:
    return SignalRecord(
        id=row[0],
        namespace=row[1],
        name=row[2],
        payload=_payload(row[3]),
        received_at=row[4],
        consumed_at=row[5],
    )


def row_of_outbox(row: OutboxRow) -> Row:
    return row.key, row.run_id, row.seq, row.attempt


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


def letter_of_row(row: Row) -> DeadLetter:
    return DeadLetter(
        id=row[0],
        received_at=row[1],
        type=row[2],
        message_id=row[3],
        reason=row[4],
        body=row[5],
        headers=_headers.decode(row[6]),
        queue=row[7],
        protocol=row[8],
        namespace=row[9],
        run_id=row[10],
        seq=row[11],
        task_id=row[12],
        size=row[13],
        last_seq=row[14],
        redriven_at=row[15],
        redrives=row[16],
    )
