"""Rows as an operator tells them: `RunRecord` and `RunDetail` of protocol/README.md."""

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, cast

from durable_worker.protocol.names import child_run_id, routing_token, step_id
from durable_worker.protocol.payload import plain_json
from durable_worker.protocol.runs import RunDetail, RunRecord, TimelineEntry
from durable_worker.protocol.tasks import HistoryKind
from durable_worker.stores.records import UNORDERED, Checkpoint, Run, RunState


@lru_cache(maxsize=256)
def iso_time(at: int) -> str:
    """ISO 8601 in UTC with milliseconds of an instant in epoch ms."""
    text = datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def run_record(run: Run, *, wake_at: int | None = None) -> RunRecord:
    attributes = plain_json(run.search_attributes)
    return RunRecord(
        id=run.id,
        workflow=run.workflow,
        workflow_version=run.version or "",
        status=run.status,
        input=run.input,
        output=run.output,
        error=run.error,
        namespace=run.namespace,
        parent_run_id=None if run.parent is None else run.parent.run_id,
        tags=list(run.tags) or None,
        search_attributes=(
            cast("dict[str, Any]", attributes) if isinstance(attributes, dict) else None
        ),
        wake_at=wake_at,
        recovery_attempts=run.recoveries or None,
        ordered=None if run.ordered == UNORDERED else run.ordered,
        created_at=iso_time(run.created_at),
        updated_at=iso_time(run.updated_at),
    )


def wake_time(checkpoints: Iterable[Checkpoint]) -> int | None:
    """When the next timer or retry among them fires."""
    due = [each.fires_at for each in checkpoints if each.is_pending and each.fires_at is not None]
    return min(due, default=None)


def timeline_entry(checkpoint: Checkpoint) -> TimelineEntry:
    is_call = checkpoint.kind is HistoryKind.CALL
    return TimelineEntry(
        run_id=checkpoint.run_id,
        seq=checkpoint.seq,
        name=checkpoint.name,
        kind=checkpoint.kind,
        step_id=step_id(checkpoint.run_id, checkpoint.seq),
        status=checkpoint.status,
        input=checkpoint.input,
        output=checkpoint.output,
        error=checkpoint.error,
        attempts=checkpoint.attempt,
        worker_group=(routing_token(checkpoint.name, checkpoint.partition) if is_call else None),
        events=list(checkpoint.events) or None,
        wake_at=checkpoint.fires_at if checkpoint.is_pending else None,
        parallel_group=checkpoint.parallel_group,
        order=checkpoint.order,
        enqueued_at=iso_time(checkpoint.enqueued_at),
        started_at=None if checkpoint.started_at is None else iso_time(checkpoint.started_at),
        finished_at=None if checkpoint.finished_at is None else iso_time(checkpoint.finished_at),
    )


def run_detail(state: RunState) -> RunDetail:
    ordered = [state.checkpoints[seq] for seq in sorted(state.checkpoints)]
    return RunDetail(
        run=run_record(state.run, wake_at=wake_time(state.pending.values())),
        timeline=[timeline_entry(each) for each in ordered],
        children=[
            child_run_id(each.run_id, each.seq)
            for each in ordered
            if each.kind is HistoryKind.CHILD
        ],
    )
