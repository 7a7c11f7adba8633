"""From what an operator tells about a run back to the history that its next turn would hold.

A timeline has one entry for each checkpoint; those that are resolved are history. The operator of
this package names their kinds as history does. A NestJS operator has kinds of its own, no entries
for signals and children that are still awaited, and leaves a timer `pending` for ever: that it has
fired shows in `wakeAt` alone.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from durable_worker.errors import ProtocolError
from durable_worker.protocol.base import Payload
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.names import routing_token
from durable_worker.protocol.runs import RunDetail, RunRecord, RunStatus, TimelineEntry
from durable_worker.protocol.tasks import HistoryEvent, HistoryKind, WorkflowTask
from durable_worker.replay.opened import OpenedRun, opened_task
from durable_worker.replay.operations import CALL_RETRY, DURABLE_TIMERS, ORDERED_HISTORY
from durable_worker.replay.witness import Asked

OWN_CAPABILITIES = (CALL_RETRY, DURABLE_TIMERS)
"""What an operator of this package states, as far as it decides how a body numbers what it asks."""

_RESOLVED = ("completed", "failed")
_OPEN = ("pending", "cancelled")

_NESTJS = {"remote": HistoryKind.CALL, "local": HistoryKind.STEP, "sleep": HistoryKind.TIMER}
_NESTJS_SIGNAL = "signal:"
_NESTJS_CHILD = "signal:child:"


class RunEnd(Struct, frozen=True, kw_only=True):
    """How a run has ended, if its body decided that: `completed` or `failed`."""

    status: RunStatus
    output: Payload = UNSET
    error: Failure | None = None


class RecordedRun(Struct, frozen=True, kw_only=True):
    """A run as far as an operator knows it.

    `task` is the turn that it would send next, `waiting` what the body has asked for that is not
    resolved, by seq, as far as the operator tells. `end` is None for a run that goes on, or that
    was ended from outside.
    """

    task: WorkflowTask
    waiting: dict[int, Asked] = {}
    end: RunEnd | None = None


def recorded_run(detail: RunDetail) -> RecordedRun:
    """What a replay needs of a run, from `getRunDetail` of either operator.

    Signals and children keep their names, which a replay does not compare, for the reader.
    Raises `ProtocolError` for a timeline of neither.
    """
    try:
        return _recorded_run(detail)
    except (ValueError, msgspec.MsgspecError) as error:
        raise ProtocolError("run-detail", f"the timeline of {detail.run.id!r}: {error}") from error


def _recorded_run(detail: RunDetail) -> RecordedRun:
    run = detail.run
    entries = [each for each in detail.timeline if each.seq >= 0]  # below 0: beside the body
    is_nestjs = _is_of_nestjs(entries)
    events: list[HistoryEvent] = []
    waiting: dict[int, Asked] = {}
    now_ms = _latest_ms(detail)
    for entry in sorted(entries, key=lambda each: each.seq):
        event = _nestjs_event(entry, now_ms) if is_nestjs else _event(entry)
        if event is not None:
            events.append(event)
        elif entry.status in _OPEN:
            kind = _NESTJS[entry.kind] if is_nestjs else HistoryKind(entry.kind)
            waiting[entry.seq] = Asked(kind, entry.name)
    task = WorkflowTask(
        task_id=f"{run.id}:check",
        run_id=run.id,
        workflow=run.workflow,
        workflow_version=run.workflow_version,
        input=run.input,
        history=events,
        group=routing_token(run.workflow),
        attempt=1,
        capabilities=None if is_nestjs else _capabilities(run),
        seen=run.ordered,
    )
    if isinstance(run, OpenedRun):
        task = opened_task(task, run.context)
    return RecordedRun(task=task, waiting=waiting, end=_end(detail))


def _capabilities(run: RunRecord) -> list[str]:
    return [*OWN_CAPABILITIES, *([] if run.ordered is None else [ORDERED_HISTORY])]


def _is_of_nestjs(entries: list[TimelineEntry]) -> bool:
    if any(each.kind in _NESTJS for each in entries):
        return True
    # Signals and children alone: there they are named `signal:...` and begin as they end.
    return bool(entries) and all(
        each.kind == HistoryKind.SIGNAL
        and each.name.startswith(_NESTJS_SIGNAL)
        and each.started_at is not None
        for each in entries
    )


def _event(entry: TimelineEntry) -> HistoryEvent | None:
    if entry.status not in _RESOLVED:
        return None
    kind = HistoryKind(entry.kind)
    return HistoryEvent(
        seq=entry.seq,
        kind=kind,
        name=entry.name,
        output=entry.output,
        error=entry.error if entry.status == "failed" else None,
        order=entry.order,
    )


def _nestjs_event(entry: TimelineEntry, now_ms: float) -> HistoryEvent | None:
    has_fired = entry.kind == "sleep" and entry.wake_at is not None and entry.wake_at <= now_ms
    if has_fired:
        return HistoryEvent(seq=entry.seq, kind=HistoryKind.TIMER, name=entry.name)
    if entry.status not in _RESOLVED:
        return None
    if entry.name.startswith(_NESTJS_CHILD) and entry.kind == HistoryKind.SIGNAL:
        return _nestjs_child(entry)
    kind = _NESTJS.get(entry.kind, HistoryKind.SIGNAL)
    return HistoryEvent(
        seq=entry.seq,
        kind=kind,
        name=entry.name.removeprefix(_NESTJS_SIGNAL) if kind is HistoryKind.SIGNAL else entry.name,
        output=entry.output,
        error=entry.error if entry.status == "failed" else None,
    )


class _ChildEnd(Struct):
    ok: bool = True
    value: Raw = Raw(b"null")
    error: Raw = Raw(b"null")


def _nestjs_child(entry: TimelineEntry) -> HistoryEvent:
    given = b"{}" if isinstance(entry.output, UnsetType) else bytes(entry.output)
    end = msgspec.json.decode(given, type=_ChildEnd)
    if end.ok:
        return HistoryEvent(seq=entry.seq, kind=HistoryKind.CHILD, output=end.value)
    reason = msgspec.json.decode(end.error)
    failure = Failure(message=reason if isinstance(reason, str) else str(reason))
    return HistoryEvent(seq=entry.seq, kind=HistoryKind.CHILD, error=failure)


def _end(detail: RunDetail) -> RunEnd | None:
    run = detail.run
    if run.status not in (RunStatus.COMPLETED, RunStatus.FAILED):
        return None
    return RunEnd(status=run.status, output=run.output, error=run.error)


def _latest_ms(detail: RunDetail) -> float:
    """The latest instant that the operator tells of: whatever was due then had been noticed."""
    return max(_epoch_ms(each) for each in _instants(detail))


def _instants(detail: RunDetail) -> Iterator[str]:
    yield detail.run.updated_at
    for entry in detail.timeline:
        yield entry.enqueued_at
        if entry.finished_at is not None:
            yield entry.finished_at


def _epoch_ms(iso: str) -> float:
    parsed = datetime.fromisoformat(iso)
    if parsed.tzinfo is None:
        parsed = parsed.replace(tzinfo=UTC)
    return parsed.timestamp() * 1000
