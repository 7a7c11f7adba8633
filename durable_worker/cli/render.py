"""Runs and their timelines for human eyes."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from msgspec import UnsetType

from durable_worker.cli.diffs import diff_lines
from durable_worker.cli.durations import at_ms, clock_time, in_words, instant, local_time
from durable_worker.cli.page import Block, Cell, Line, Table, Text
from durable_worker.protocol.base import Payload
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.payload_envelope import described
from durable_worker.protocol.results import StepEvent
from durable_worker.protocol.runs import RunDetail, RunRecord, RunStatus, TimelineEntry
from durable_worker.replay.diff import mismatch_in

_LONGEST_PAYLOAD = 200

_BOOKKEEPING = "durable:"
"""What the replay records for itself; only `--json` shows it."""

_STYLES = {
    "completed": "green",
    "failed": "red",
    "dead": "red",
    "blocked": "red",
    "cancelled": "yellow",
    "cancelling": "yellow",
    "running": "cyan",
    "pending": "cyan",
    "suspended": "cyan",
    "warn": "yellow",
    "error": "red",
}

_KINDS = {"call": "step", "step": "local"}


def run_table(records: Sequence[RunRecord], *, now: datetime) -> list[Block]:
    if not records:
        return [Line(["no runs"])]
    return [
        Table(
            ["RUN", "WORKFLOW", "STATUS", "STARTED", "LASTED"],
            [
                [
                    record.id,
                    _titled(record),
                    _status(record.status),
                    local_time(instant(record.created_at)),
                    in_words(_lasted(record, now=now)),
                ]
                for record in records
            ],
        )
    ]


def run_page(detail: RunDetail, *, now: datetime) -> list[Block]:
    run = detail.run
    facts: list[tuple[str, Sequence[Cell]]] = [
        ("run", [run.id]),
        ("workflow", [_titled(run)]),
        ("status", [_status(run.status), _standing(run, now=now)]),
        ("started", [local_time(instant(run.created_at))]),
    ]
    if run.parent_run_id is not None:
        facts.append(("parent", [run.parent_run_id]))
    if run.tags:
        facts.append(("tags", [", ".join(run.tags)]))
    facts.append(("input", [_shortened(run.input)]))
    if run.status is RunStatus.COMPLETED:
        facts.append(("output", [_shortened(run.output)]))
    if run.error is not None:
        facts.append(("error", [Text(_reason(run.error), "red")]))
    if detail.children:
        facts.append(("children", [", ".join(detail.children)]))
    lines: list[Block] = [Line([Text(f"{name:<10}", "dim"), *said]) for name, said in facts]
    mismatch = mismatch_in(run.error)
    if mismatch is not None:
        lines += [Line([]), *diff_lines(mismatch)]
    return [*lines, Line([]), _timeline(detail.timeline, now=now)]


def _titled(run: RunRecord) -> str:
    return f"{run.workflow} {run.workflow_version}".rstrip()


def _status(status: str) -> Text:
    return Text(status, _STYLES.get(status, ""))


def _lasted(run: RunRecord, *, now: datetime) -> timedelta:
    end = instant(run.updated_at) if run.status.is_terminal else now
    return end - instant(run.created_at)


def _standing(run: RunRecord, *, now: datetime) -> str:
    if run.status.is_terminal:
        return f" after {in_words(_lasted(run, now=now))}"
    if run.wake_at is not None:
        return f", wakes in {in_words(at_ms(run.wake_at) - now)}"
    if run.status is RunStatus.PENDING:
        return f", waits for a worker that serves {run.workflow}"
    return ""


def _timeline(entries: Sequence[TimelineEntry], *, now: datetime) -> Block:
    told = [each for each in entries if not each.name.startswith(_BOOKKEEPING)]
    if not told:
        return Line([Text("no step so far", "dim")])
    rows: list[Sequence[Cell] | Line] = []
    for entry in told:
        rows.append(
            [
                str(entry.seq),
                _KINDS.get(entry.kind, entry.kind),
                entry.name,
                _status(entry.status),
                str(entry.attempts) if entry.kind == "call" else "",
                _duration(entry, now=now),
            ]
        )
        rows += _particulars(entry)
    return Table(["SEQ", "KIND", "NAME", "STATUS", "ATTEMPTS", "DURATION"], rows)


def _duration(entry: TimelineEntry, *, now: datetime) -> str:
    if entry.wake_at is not None:
        left = in_words(at_ms(entry.wake_at) - now)
        return f"again in {left}" if entry.kind == "call" else f"fires in {left}"
    begin = instant(entry.started_at or entry.enqueued_at)
    if entry.finished_at is not None:
        return in_words(instant(entry.finished_at) - begin)
    return f"{in_words(now - begin)} so far" if entry.status == "pending" else ""


def _particulars(entry: TimelineEntry) -> list[Line]:
    lines = [_event(each) for each in entry.events or ()]
    if entry.error is not None:
        lines.append(Line([Text(_reason(entry.error), "red")], indent=8))
    return lines


def _event(event: StepEvent) -> Line:
    subject = event.name or event.sub_id
    outcome = " ".join(part for part in (subject, event.phase, event.status) if part)
    parts: list[Cell] = [
        Text(f"{clock_time(at_ms(event.at))}  ", "dim"),
        Text(f"{event.level:<5}  ", _STYLES.get(event.level, "dim")),
        event.message,
    ]
    if outcome and outcome != event.message:
        parts.append(Text(f"  ({outcome})", "dim"))
    if not isinstance(event.data, UnsetType):
        parts.append(Text(f"  {_shortened(event.data)}", "dim"))
    return Line(parts, indent=8)


def _reason(failure: Failure) -> str:
    sealed = described(failure.details)
    if sealed is not None:
        return sealed if failure.code is None else f"{sealed} [{failure.code}]"
    is_told = failure.code is None or f"[{failure.code}]" in failure.message
    return failure.message if is_told else f"{failure.message} [{failure.code}]"


def _shortened(payload: Payload) -> str:
    if isinstance(payload, UnsetType):
        return "null"
    sealed = described(payload)
    if sealed is not None:
        return sealed
    text = bytes(payload).decode(errors="replace")
    return text if len(text) <= _LONGEST_PAYLOAD else f"{text[:_LONGEST_PAYLOAD]}..."
