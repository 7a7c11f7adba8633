"""What an operator tells of a run, in clear."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from msgspec import UNSET, structs

from durable_worker.edge.errors import SealError
from durable_worker.edge.parts import is_internal, open_event, open_failure
from durable_worker.edge.plain import Codec
from durable_worker.protocol.base import Payload
from durable_worker.protocol.control import EngineEvent
from durable_worker.protocol.failure import Failure
from durable_worker.protocol.payload_envelope import Opened
from durable_worker.protocol.results import StepEvent
from durable_worker.protocol.runs import RunDetail, RunRecord, TimelineEntry
from durable_worker.replay.opened import opened_run

T = TypeVar("T")

RECORDED_KINDS = frozenset({"step", "local"})
"""How operators call an entry that a body has recorded: ours, and NestJS."""


class RecordOpener:
    """Opens records. With `keeps_sealed`, what cannot be opened stays as it is."""

    def __init__(self, codec: Codec, *, keeps_sealed: bool = False) -> None:
        self._codec = codec
        self._keeps_sealed = keeps_sealed

    async def run(self, run: RunRecord) -> RunRecord:
        what = f"the input of run {run.id!r}"

        async def opened() -> Opened:
            return await self._codec.open(run.input, what=what)

        given = await self._unless_sealed(opened, Opened(run.input))
        clear = structs.replace(
            run,
            input=given.value,
            output=await self._payload(run.output, f"the output of run {run.id!r}"),
            error=await self._failure(run.error, f"the error of run {run.id!r}"),
        )
        return clear if given.context is None else opened_run(clear, given.context)

    async def outcome(self, run: RunRecord) -> RunRecord:
        """Only how it ended: whoever waits for that needs no key for the input, and learns that a
        run has failed without one for the reason."""
        output = await self._payload(run.output, f"the output of run {run.id!r}")
        error = run.error
        try:
            error = await self._failure(error, f"the error of run {run.id!r}")
        except SealError as sealed:
            error = error and structs.replace(error, message=str(sealed), details=UNSET)
        return structs.replace(run, output=output, error=error)

    async def detail(self, detail: RunDetail) -> RunDetail:
        return structs.replace(
            detail,
            run=await self.run(detail.run),
            timeline=[await self._entry(each) for each in detail.timeline],
        )

    async def named(self, detail: RunDetail, name: str) -> RunDetail:
        """Only what its timeline holds under `name`."""
        timeline = [
            await self._entry(each) if each.name == name else each for each in detail.timeline
        ]
        return structs.replace(detail, timeline=timeline)

    async def engine_event(self, event: EngineEvent) -> EngineEvent:
        where = f"event {event.type.value} of run {event.run_id!r}"
        report = event.event
        return structs.replace(
            event,
            output=await self._payload(event.output, f"the output in {where}"),
            error=await self._failure(event.error, f"the error in {where}"),
            event=report and await self._event(report, f"what is reported in {where}"),
        )

    async def _entry(self, entry: TimelineEntry) -> TimelineEntry:
        if entry.kind == "timer" or (
            entry.kind in RECORDED_KINDS and is_internal(entry.name, entry.output, entry.error)
        ):
            return entry
        where = f"seq {entry.seq} ({entry.name}) of run {entry.run_id!r}"
        events = entry.events
        return structs.replace(
            entry,
            input=await self._payload(entry.input, f"the input at {where}"),
            output=await self._payload(entry.output, f"the output at {where}"),
            error=await self._failure(entry.error, f"the error at {where}"),
            events=events and [await self._event(each, f"an event at {where}") for each in events],
        )

    async def _payload(self, payload: Payload, what: str) -> Payload:
        async def opened() -> Payload:
            return (await self._codec.open(payload, what=what)).value

        return await self._unless_sealed(opened, payload)

    async def _failure(self, failure: Failure | None, what: str) -> Failure | None:
        if failure is None:
            return None
        return await self._unless_sealed(
            lambda: open_failure(self._codec, failure, what=what), failure
        )

    async def _event(self, event: StepEvent, what: str) -> StepEvent:
        return await self._unless_sealed(lambda: open_event(self._codec, event, what=what), event)

    async def _unless_sealed(self, opening: Callable[[], Awaitable[T]], sealed: T) -> T:
        try:
            return await opening()
        except SealError:
            if not self._keeps_sealed:
                raise
            return sealed
