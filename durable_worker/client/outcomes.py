"""What a run's record says to whoever asked for the run."""

from typing import TypeVar

from durable_worker.edge.records import RECORDED_KINDS
from durable_worker.errors import QueryFailedError, RunCancelledError, RunFailedError
from durable_worker.protocol.names import published_value
from durable_worker.protocol.payload import PayloadDecoder, plain_json
from durable_worker.protocol.runs import RunDetail, RunRecord, RunStatus, TimelineEntry

T = TypeVar("T")


def published_entry(detail: RunDetail, name: str) -> TimelineEntry:
    """Where the run's history holds the current value. Raises `QueryFailedError`."""
    prefix = published_value("")
    published = {
        each.name.removeprefix(prefix): each
        for each in sorted(detail.timeline, key=lambda entry: entry.seq)
        if each.name.startswith(prefix) and each.kind in RECORDED_KINDS
    }
    found = published.get(name)
    if found is None:
        known = ", ".join(map(repr, published)) or "nothing"
        raise QueryFailedError(detail.run.id, name, f"it has published {known} so far")
    if found.error is not None:
        raise QueryFailedError(detail.run.id, name, found.error.message)
    return found


def output_of(run: RunRecord, decoder: PayloadDecoder[T]) -> T:
    """The output of a terminal run. Raises `RunFailedError` unless it completed."""
    if run.status is RunStatus.COMPLETED:
        return decoder.decode(run.output, what=f"the output of run {run.id!r}")
    failure = run.error
    is_cancelled = run.status is RunStatus.CANCELLED
    raise (RunCancelledError if is_cancelled else RunFailedError)(
        run.id,
        run.workflow,
        status=run.status,
        message=None if failure is None else failure.message,
        code=None if failure is None else failure.code,
        details=None if failure is None else plain_json(failure.details),
    )
