"""What happens right now: steps that report while they run, turns that beat."""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from msgspec import Raw
from msgspec.structs import replace

from durable_worker.operator.jobs import Job
from durable_worker.operator.log import log
from durable_worker.operator.registry import Registry
from durable_worker.protocol.control import EngineEvent, EngineEventType, Heartbeat
from durable_worker.protocol.names import routing_token
from durable_worker.protocol.results import StepEvent, StepPhase, WorkflowStepEvent
from durable_worker.protocol.runs import RunDetail, TimelineEntry
from durable_worker.stores.inputs import TurnLost
from durable_worker.stores.records import RunState
from durable_worker.stores.views import iso_time

MAX_STEPS = 2_000
MAX_EVENTS = 200
MAX_BYTES = 32 * 1024 * 1024
"""Of text and data in all events that are kept."""


@dataclass(slots=True)
class _Report:
    started_at: int | None = None
    events: deque[StepEvent] = field(default_factory=deque[StepEvent])
    bytes: int = 0

    def add(self, event: StepEvent) -> None:
        self.events.append(event)
        self.bytes += _size(event)
        if len(self.events) > MAX_EVENTS:
            self.bytes -= _size(self.events.popleft())


def _size(event: StepEvent) -> int:
    return len(event.message) + (len(event.data) if isinstance(event.data, Raw) else 0)


class LiveReports:
    """The last reports of steps that have not answered yet; bounded, lost with the process."""

    def __init__(self) -> None:
        self._reports: OrderedDict[tuple[str, int], _Report] = OrderedDict()
        self._bytes = 0

    def on_step_event(self, event: WorkflowStepEvent) -> None:
        if event.phase is not StepPhase.RUNNING:
            self.forget(event.run_id, event.seq)
            return
        report = self._report(event.run_id, event.seq)
        report.started_at = event.started_at
        self._add(report, event.events or ())

    def on_progress(self, event: EngineEvent) -> None:
        if event.type is not EngineEventType.STEP_PROGRESS or event.seq is None:
            return
        if event.event is not None:
            report = self._report(event.run_id, event.seq)
            if report.started_at is None:
                report.started_at = event.event.at
            self._add(report, [event.event])

    def _report(self, run_id: str, seq: int) -> _Report:
        key = (run_id, seq)
        report = self._reports.setdefault(key, _Report())
        self._reports.move_to_end(key)
        return report

    def _add(self, report: _Report, events: Iterable[StepEvent]) -> None:
        before = report.bytes
        for each in events:
            report.add(each)
        self._bytes += report.bytes - before
        while len(self._reports) > MAX_STEPS or self._bytes > MAX_BYTES:
            self._bytes -= self._reports.popitem(last=False)[1].bytes

    def forget(self, run_id: str, seq: int) -> None:
        report = self._reports.pop((run_id, seq), None)
        if report is not None:
            self._bytes -= report.bytes

    def enrich(self, detail: RunDetail) -> RunDetail:
        """The detail with what its pending steps have reported so far."""
        if not self._reports:
            return detail
        timeline = [self._enriched(each) for each in detail.timeline]
        return replace(detail, timeline=timeline)

    def _enriched(self, entry: TimelineEntry) -> TimelineEntry:
        report = self._reports.get((entry.run_id, entry.seq))
        if report is None or entry.finished_at is not None:
            return entry
        started = entry.started_at
        if started is None and report.started_at is not None:
            started = iso_time(min(report.started_at, 2**47))
        events = [*(entry.events or ()), *report.events]
        return replace(entry, started_at=started, events=events or None)


class TurnWatch:
    """Turns whose worker beat, and when it was heard last (monotonic seconds)."""

    def __init__(
        self,
        *,
        silence: float,
        monotonic: Callable[[], float],
        registry: Registry,
        peek: Callable[[str], RunState | None],
    ) -> None:
        self._silence = silence
        self._monotonic = monotonic
        self._registry = registry
        self._peek = peek
        self._heard: dict[str, tuple[str, float]] = {}

    def on_heartbeat(self, beat: Heartbeat) -> None:
        if beat.step_id is not None:
            return
        state = self._peek(beat.run_id)
        if state is not None and state.run.task_id is not None:
            self._heard[beat.run_id] = (state.run.task_id, self._monotonic())

    def silent(self) -> list[str]:
        """Runs whose turn `lost` would tell of, as far as their time goes."""
        now = self._monotonic()
        return [run_id for run_id, (_, at) in self._heard.items() if now - at > self._silence]

    def correct(self, run_id: str, task_id: str | None) -> None:
        """Another operator has moved it on: forget what was heard of an earlier turn."""
        if run_id in self._heard and self._heard[run_id][0] != task_id:
            del self._heard[run_id]

    def lost(self) -> list[Job]:
        """Turns that have been silent for too long although a worker for them lives."""
        found: list[Job] = []
        for run_id, (task_id, heard_at) in list(self._heard.items()):
            state = self._peek(run_id)
            if state is None or state.run.task_id != task_id:
                del self._heard[run_id]
            elif self._monotonic() - heard_at > self._silence and self._registry.serves(
                routing_token(state.run.workflow, state.run.partition)
            ):
                del self._heard[run_id]
                log.warning("turn_lost", run_id=run_id, task_id=task_id, silence=self._silence)
                found.append(Job(input=TurnLost(run_id=run_id, task_id=task_id)))
        return found
