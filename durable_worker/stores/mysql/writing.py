"""What a batch changes, as statements."""

from collections.abc import Iterable, Iterator, Sequence

from msgspec import UnsetType, structs

from durable_worker.stores.attributes import stored_tags
from durable_worker.stores.base import Batch
from durable_worker.stores.inputs import encode_input
from durable_worker.stores.mysql.rows import (
    row_of_checkpoint,
    row_of_letter,
    row_of_outbox,
    row_of_run,
    row_of_signal,
    waits_for_signal,
)
from durable_worker.stores.mysql.statements import Expression, Row, filled, inserts, loaded
from durable_worker.stores.records import Checkpoint, DeadLetter

KEYS_AT_A_TIME = 1_000

BEGIN, COMMIT = b"START TRANSACTION", b"COMMIT"

_sql = loaded("runs", "checkpoints", "messages", "lease")


Label = tuple[str, str, int, str]
"""A row of `durable_run_tags`."""


def may_change_labels(batch: Batch) -> list[str]:
    """Ids of runs that may have been found by something else before. Tags never change."""
    runs = {
        each.id: each for each in batch.runs if not isinstance(each.search_attributes, UnsetType)
    }
    return [*(runs.keys() - set(batch.absent))]


def statements_of(batch: Batch, labels: Iterable[Label]) -> Iterator[bytes]:
    """In the order that `Batch` asks for. A statement writes each row once: of two that are equal
    by key, the later one counts. `labels`: those of `may_change_labels` so far."""
    runs = {each.id: each for each in batch.runs}
    tags = dict.fromkeys(
        (each.namespace, tag, each.created_at, each.id)
        for each in runs.values()
        for tag in stored_tags(each)
    )
    signals = {each.id: each for each in batch.signals}
    owed = {each.key: each for each in batch.outbox_added}
    yield from _by_key(_sql["require_absent"], batch.absent)
    for run_id, seq in dict.fromkeys(batch.checkpoints_removed):
        yield filled(_sql["remove_checkpoint"], run_id, seq)
    yield from inserts(_sql["put_run"], map(row_of_run, runs.values()))
    yield from inserts(_sql["put_tag"], tags)
    for label in labels:
        if label not in tags:
            yield filled(_sql["remove_tag"], *label)
    yield from inserts(_sql["put_checkpoint"], _checkpoint_rows(batch))
    yield from inserts(_sql["put_signal"], map(row_of_signal, signals.values()))
    yield from inserts(_sql["put_outbox"], map(row_of_outbox, owed.values()))
    yield from _by_key(_sql["remove_outbox"], batch.outbox_removed)
    yield from submissions([encode_input(each) for each in batch.inbox_added])
    yield from _by_key(_sql["remove_inbox"], batch.inbox_removed)
    yield from inserts(_sql["put_dead_letter"], _letter_rows(batch.dead_letters))


def submissions(bodies: Sequence[bytes]) -> Iterator[bytes]:
    """Numbers are given under a lock that is held until the commit, so none becomes visible before
    a smaller one."""
    if bodies:
        yield filled(_sql["take_inbox_ids"], len(bodies))
        rows: Iterable[Row] = (
            (Expression(filled(_sql["inbox_id"], number)), body)
            for number, body in enumerate(bodies, start=1)
        )
        yield from inserts(_sql["put_inbox"], rows)


def _checkpoint_rows(batch: Batch) -> Iterator[Row]:
    homes = {each.id: each.namespace for each in batch.runs}
    checkpoints = {(each.run_id, each.seq): each for each in batch.checkpoints}
    for each in checkpoints.values():
        yield row_of_checkpoint(each, homes.get(each.run_id) or _home_of(each))


def _home_of(checkpoint: Checkpoint) -> Expression | None:
    """Waits for signals are found by the namespace of their run, which never changes."""
    if not waits_for_signal(checkpoint):
        return None
    return Expression(filled(_sql["namespace_of_run"], checkpoint.run_id))


def _letter_rows(letters: Sequence[DeadLetter]) -> Iterator[Row]:
    kept: dict[str, DeadLetter] = {}
    for each in letters:
        known = kept.get(each.id, each)
        kept[each.id] = structs.replace(each, redrives=max(known.redrives, each.redrives))
    return map(row_of_letter, kept.values())


def _by_key(statement: bytes, keys: Iterable[int | str]) -> Iterator[bytes]:
    wanted = list(dict.fromkeys(keys))
    for first in range(0, len(wanted), KEYS_AT_A_TIME):
        yield filled(statement, wanted[first : first + KEYS_AT_A_TIME])
