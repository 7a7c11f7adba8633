"""Records to rows of the schema and back, column by column.

Text in PostgreSQL holds every character but NUL. It is spelled with two of U+0001, which changes
neither what is equal nor what comes before what.
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
from durable_worker.stores.records import (
    Checkpoint,
    CheckpointStatus,
    DeadLetter,
    OutboxRow,
    Parent,
    Run,
    SignalRecord,
)

Row = Sequence[Any]

_encode = msgspec.json.Encoder().encode
_failures = msgspec.json.Decoder(Failure)
_retries = msgspec.json.Decoder(RetryOptions)
_events = msgspec.json.Decoder(tuple[StepEvent, ...])
_headers = msgspec.json.Decoder(dict[str, str])
_run_statuses = {each.value: each for each in RunStatus}
_statuses = {each.value: each for each in CheckpointStatus}
_kinds = {each.value: each for each in HistoryKind}


def text_in(text: str) -> str:
    if "\x00" in text or "\x01" in text:
        return text.replace("\x01", "\x01\x02").replace("\x00", "\x01\x01")
    return text


def text_out(stored: str) -> str:
    if "\x01" in stored:
        return stored.replace("\x01\x01", "\x00").replace("\x01\x02", "\x01")
    return stored


def _some_in(text: str | None) -> str | None:
    return None if text is None else text_in(text)


def _some_out(stored: str | None) -> str | None:
    return None if stored is None else text_out(stored)


def _bytes(payload: Payload) -> bytes | None:
    return None if isinstance(payload, UnsetType) else bytes(payload)


def _payload(stored: bytes | None) -> Payload:
    return UNSET if stored is None else Raw(stored)


def row_of_run(run: Run, *, rewound: int = 0) -> Row:
    """`rewound`: the revision that takes checkpoints of it away, 0 for one that takes none."""
    parent = run.parent
    return (
        text_in(run.id),
        text_in(run.workflow),
        _some_in(run.version),
        text_in(run.namespace),
        _some_in(run.partition),
        run.status,
        _bytes(run.input),
        _bytes(run.output),
        None if run.error is None else _encode(run.error),
        None if parent is None else text_in(parent.run_id),
        None if parent is None else parent.seq,
        [text_in(each) for each in stored_tags(run)],
        _bytes(run.search_attributes),
        run.created_at,
        run.updated_at,
        run.turn_no,
        _some_in(run.task_id),
        run.is_dirty,
        run.recoveries,
        1,
        run.ordered,
        rewound,
    )


def revision_of_row(row: Row) -> int:
    revision: int = row[19]
    return revision


def run_of_row(row: Row) -> Run:
    return Run(
        id=text_out(row[0]),
        workflow=text_out(row[1]),
        version=_some_out(row[2]),
        namespace=text_out(row[3]),
        partition=_some_out(row[4]),
        status=_run_statuses[row[5]],
        input=_payload(row[6]),
        output=_payload(row[7]),
        error=None if row[8] is None else _failures.decode(row[8]),
        parent=None if row[9] is None else Parent(text_out(row[9]), row[10]),
        tags=own_tags([*map(text_out, row[11])], _payload(row[12])),
        search_attributes=_payload(row[12]),
        created_at=row[13],
        updated_at=row[14],
        turn_no=row[15],
        task_id=_some_out(row[16]),
        is_dirty=row[17],
        recoveries=row[18],
        ordered=row[20],
    )


def row_of_checkpoint(checkpoint: Checkpoint, namespace: str | None, revision: int) -> Row:
    """`namespace`: of its run, if it is at hand. `revision`: the one that its run comes to."""
    return (
        text_in(checkpoint.run_id),
        checkpoint.seq,
        checkpoint.kind,
        text_in(checkpoint.name),
        checkpoint.status,
        _bytes(checkpoint.input),
        _bytes(checkpoint.output),
        None if checkpoint.error is None else _encode(checkpoint.error),
        checkpoint.attempt,
        None if checkpoint.retry is None else _encode(checkpoint.retry),
        _some_in(checkpoint.partition),
        checkpoint.fires_at,
        checkpoint.enqueued_at,
        checkpoint.started_at,
        checkpoint.finished_at,
        _encode(checkpoint.events) if checkpoint.events else None,
        _some_in(checkpoint.parallel_group),
        checkpoint.recoveries,
        checkpoint.order,
        _some_in(namespace),
        None,
        revision,
    )


def checkpoint_of_row(row: Row) -> Checkpoint:
    return Checkpoint(
        run_id=text_out(row[0]),
        seq=row[1],
        kind=_kinds[row[2]],
        name=text_out(row[3]),
        status=_statuses[row[4]],
        input=_payload(row[5]),
        output=_payload(row[6]),
        error=None if row[7] is None else _failures.decode(row[7]),
        attempt=row[8],
        retry=None if row[9] is None else _retries.decode(row[9]),
        partition=_some_out(row[10]),
        fires_at=row[11],
        enqueued_at=row[12],
        started_at=row[13],
        finished_at=row[14],
        events=() if row[15] is None else _events.decode(row[15]),
        parallel_group=_some_out(row[16]),
        recoveries=row[17],
        order=row[18],
    )


def row_of_signal(signal: SignalRecord) -> Row:
    return (
        text_in(signal.id),
        text_in(signal.namespace),
        text_in(signal.name),
        _bytes(signal.payload),
        signal.received_at,
        signal.consumed_at,
    )


def signal_of_row(row: Row) -> SignalRecord:
    return SignalRecord(
        id=text_out(row[0]),
        namespace=text_out(row[1]),
        name=text_out(row[2]),
        payload=_payload(row[3]),
        received_at=row[4],
        consumed_at=row[5],
    )


def row_of_outbox(row: OutboxRow) -> Row:
    return text_in(row.key), text_in(row.run_id), row.seq, row.attempt, None


def outbox_of_row(row: Row) -> OutboxRow:
    return OutboxRow(text_out(row[0]), text_out(row[1]), row[2], row[3])


def row_of_letter(letter: DeadLetter) -> Row:
    return (
        text_in(letter.id),
        letter.received_at,
        _some_in(letter.type),
        _some_in(letter.message_id),
        text_in(letter.reason),
        letter.body,
        _encode(letter.headers),
        _some_in(letter.queue),
        letter.protocol,
        text_in(letter.namespace),
        _some_in(letter.run_id),
        letter.seq,
        _some_in(letter.task_id),
        letter.size,
        letter.last_seq,
        letter.redriven_at,
        letter.redrives,
    )


def letter_of_row(row: Row) -> DeadLetter:
    return DeadLetter(
        id=text_out(row[0]),
        received_at=row[1],
        type=_some_out(row[2]),
        message_id=_some_out(row[3]),
        reason=text_out(row[4]),
        body=row[5],
        headers=_headers.decode(row[6]),
        queue=_some_out(row[7]),
        protocol=row[8],
        namespace=text_out(row[9]),
        run_id=_some_out(row[10]),
        seq=row[11],
        task_id=_some_out(row[12]),
        size=row[13],
        last_seq=row[14],
        redriven_at=row[15],
        redrives=row[16],
    )
