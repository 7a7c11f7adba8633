"""A batch as the parameters of the statement that commits it."""

from collections.abc import Sequence
from typing import Any

from msgspec import structs

from durable_worker.stores.base import Batch
from durable_worker.stores.inputs import encode_input
from durable_worker.stores.postgres.rows import (
    Row,
    row_of_checkpoint,
    row_of_letter,
    row_of_outbox,
    row_of_run,
    row_of_signal,
    text_in,
)
from durable_worker.stores.records import LAST_SEQ, DeadLetter

_UNCOUNTED = LAST_SEQ
"""In place of a revision, of rows that a lone writer has changed: newer than whatever is known."""


def parameters_of(batch: Batch) -> list[Sequence[Any]]:
    """Those after token and writer. A statement can write each row once."""
    homes = {each.id: each.namespace for each in batch.runs}
    revisions = {run_id: revision + 1 for run_id, revision in batch.expected}
    rewound = {run_id: revisions.get(run_id, _UNCOUNTED) for run_id, _ in batch.checkpoints_removed}
    absent = {run_id for run_id, revision in batch.expected if not revision}
    runs = {each.id: each for each in batch.runs}
    checkpoints = {(each.run_id, each.seq): each for each in batch.checkpoints}
    gone = [key for key in dict.fromkeys(batch.checkpoints_removed) if key not in checkpoints]
    sent = dict.fromkeys(batch.outbox_removed)
    owed = {each.key: each for each in batch.outbox_added if each.key not in sent}
    return [
        [
            row_of_run(each, rewound=rewound.get(each.id, 0))
            for each in runs.values()
            if each.id not in absent
        ],
        [text_in(run_id) for run_id, _ in gone],
        [seq for _, seq in gone],
        [
            row_of_checkpoint(each, homes.get(each.run_id), revisions.get(each.run_id, _UNCOUNTED))
            for each in checkpoints.values()
        ],
        [row_of_signal(each) for each in {each.id: each for each in batch.signals}.values()],
        [row_of_outbox(each) for each in owed.values()],
        [text_in(key) for key in sent],
        [encode_input(each) for each in batch.inbox_added],
        list(dict.fromkeys(batch.inbox_removed)),
        _letter_rows(batch.dead_letters),
        [text_in(run_id) for run_id, _ in batch.expected],
        [revision for _, revision in batch.expected],
        [row_of_run(runs[run_id]) for run_id in sorted(absent & runs.keys())],
    ]


def _letter_rows(letters: Sequence[DeadLetter]) -> list[Row]:
    kept: dict[str, DeadLetter] = {}
    for each in letters:
        known = kept.get(each.id, each)
        redrives = max(known.redrives, each.redrives)
        kept[each.id] = structs.replace(each, redrives=redrives)
    return [row_of_letter(each) for each in kept.values()]
