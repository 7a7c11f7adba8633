"""What happens to a run, as a stream: live events, and history for what they have left out."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import UNSET, UnsetType

from durable_worker.client.port import OperatorPort
from durable_worker.edge.records import RecordOpener
from durable_worker.errors import NoOperatorError
from durable_worker.protocol.base import Payload
from durable_worker.protocol.control import EngineEvent, EngineEventType
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.payload import decoder_for
from durable_worker.protocol.results import StepEvent
from durable_worker.protocol.runs import RunDetail, RunStatus

MOST_WAITING = 1_000
"""Events that wait for a slow reader of one stream."""

_FIRST_PAUSE = timedelta(milliseconds=500)
_ENDS = (EngineEventType.RUN_COMPLETED, EngineEventType.RUN_FAILED)
_CALLS = frozenset({"call", "remote"})
"""How operators call a step that a worker was asked for: ours, and NestJS."""

Key = tuple[str, int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEvent:
    """`output` is JSON, in clear, of what completed; `read` decodes it. `report`: what a step says
    while it runs. `status` is set at the end of the run."""

    type: EngineEventType
    run_id: str
    at: datetime
    seq: int | None = None
    name: str | None = None
    output: Payload = UNSET
    error: Failure | None = None
    report: StepEvent | None = None
    status: RunStatus | None = None

    @property
    def is_end(self) -> bool:
        return self.type in _ENDS

    def read(self, returns: Any = None) -> Any:
        """The output as `returns`, plain JSON by default. Raises `PayloadError`."""
        return decoder_for(returns).decode(self.output, what=f"the output in {self.type}")

    def as_json(self) -> dict[str, object]:
        """For an encoder of JSON, camelCase; what is absent is left out."""
        told: dict[str, object] = {"type": self.type.value, "runId": self.run_id}
        told["at"] = self.at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        rest = {
            "seq": self.seq,
            "name": self.name,
            "output": None if isinstance(self.output, UnsetType) else self.read(),
            "error": self.error and {"message": self.error.message, "code": self.error.code},
            "report": self.report and {"level": self.report.level, "message": self.report.message},
            "status": self.status and self.status.value,
        }
        return told | {key: value for key, value in rest.items() if value is not None}


class EventStream:
    """Follows one run; `read` ends with the end of the run. Use once."""

    def __init__(
        self,
        port: OperatorPort,
        opener: RecordOpener,
        run_id: str,
        *,
        has_history: bool,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self._port = port
        self._opener = opener
        self._run_id = run_id
        self._has_history = has_history
        self._most_waiting = most_waiting
        self._waiting: deque[EngineEvent] = deque()
        self._wake = asyncio.Event()
        self._is_short = False
        self._told: set[Key] = set()
        self._before: set[Key] = set()

    async def read(self) -> AsyncGenerator[RunEvent]:
        """Raises `RunNotFoundError` and `RequestRefusedError`."""
        end_following = self._port.follow(self._run_id, self._notice)
        try:
            detail = await self._look()
            if detail is not None and not self._has_history:
                self._before = {key_of(each) for each in facts_of(detail) if each.type not in _ENDS}
            first_pause = pause = min(_FIRST_PAUSE, self._port.longest_pause)
            while True:
                for fact in () if detail is None else facts_of(detail):
                    if key_of(fact) not in self._before and self._is_new(fact):
                        yield await self._opened(fact, detail)
                    if fact.type in _ENDS:
                        return
                while self._waiting:
                    event = self._waiting.popleft()
                    pause = first_pause
                    if event.type in _ENDS:
                        self._is_short = True  # only history says whether all came before it
                    elif self._is_new(event):
                        yield await self._opened(event, None)
                if not self._is_short:
                    pause = await self._pause(pause)
                if self._is_short or not self._waiting:
                    self._is_short = False
                    detail = await self._look()
                else:
                    detail = None
        finally:
            end_following()

    def _notice(self, event: EngineEvent) -> None:
        if len(self._waiting) >= self._most_waiting:
            self._is_short = True
        else:
            self._waiting.append(event)
        self._wake.set()

    async def _pause(self, pause: timedelta) -> timedelta:
        """Until something is heard; returns how long the next pause may be."""
        self._wake.clear()
        try:
            async with asyncio.timeout(pause.total_seconds()):
                await self._wake.wait()
        except TimeoutError:
            return min(pause * 2, self._port.longest_pause)
        return pause

    async def _look(self) -> RunDetail | None:
        try:
            return await self._port.detail(self._run_id)
        except NoOperatorError:
            return None  # it is looked for again: a run takes as long as it takes

    def _is_new(self, event: EngineEvent) -> bool:
        """Whether to tell it: facts once each, what is no fact whenever it comes."""
        if event.type not in _FACTS:
            return True
        key = key_of(event)
        if key in self._told:
            return False
        self._told.add(key)
        return True

    async def _opened(self, event: EngineEvent, detail: RunDetail | None) -> RunEvent:
        clear = await self._opener.engine_event(event)
        is_end = event.type in _ENDS and detail is not None
        return RunEvent(
            type=event.type,
            run_id=event.run_id,
            at=_instant(event.at),
            seq=event.seq,
            name=event.name,
            output=clear.output,
            error=clear.error,
            report=clear.event,
            status=detail.run.status if is_end and detail is not None else None,
        )


_FACTS = frozenset(
    {
        EngineEventType.RUN_STARTED,
        EngineEventType.STEP_COMPLETED,
        EngineEventType.STEP_FAILED,
        *_ENDS,
    }
)
"""What history tells, too."""


def key_of(event: EngineEvent) -> Key:
    return event.type.value, event.seq


def facts_of(detail: RunDetail) -> Iterator[EngineEvent]:
    """What has happened to a run, in the order of time, as its operator would have told it."""
    run = detail.run
    if run.workflow_version:
        yield _of_run(detail, EngineEventType.RUN_STARTED, at=run.created_at)
    ended = [each for each in detail.timeline if each.kind in _CALLS and each.finished_at]
    for each in sorted(ended, key=lambda entry: (entry.finished_at or "", entry.seq)):
        if each.status in ("completed", "failed"):
            yield EngineEvent(
                type=(
                    EngineEventType.STEP_COMPLETED
                    if each.status == "completed"
                    else EngineEventType.STEP_FAILED
                ),
                run_id=each.run_id,
                seq=each.seq,
                name=each.name,
                output=each.output,
                error=each.error,
                at=each.finished_at or run.updated_at,
            )
    if run.status.is_terminal:
        is_completed = run.status is RunStatus.COMPLETED
        end = EngineEventType.RUN_COMPLETED if is_completed else EngineEventType.RUN_FAILED
        yield _of_run(detail, end, at=run.updated_at, output=run.output, error=run.error)


def _of_run(detail: RunDetail, event_type: EngineEventType, **fields: Any) -> EngineEvent:
    run = detail.run
    return EngineEvent(type=event_type, run_id=run.id, workflow=run.workflow, **fields)


def _instant(at: int | str) -> datetime:
    if isinstance(at, int):
        return datetime.fromtimestamp(min(at, 2**47) / 1000, UTC)
    return datetime.fromisoformat(at)
