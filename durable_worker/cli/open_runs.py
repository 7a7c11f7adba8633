"""Every open run of an operator, held against new code."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from durable_worker.cli.serving import tell
from durable_worker.client import Client
from durable_worker.errors import (
    PayloadError,
    ProtocolError,
    RegistrationError,
    RequestRefusedError,
    RunNotFoundError,
)
from durable_worker.protocol.runs import RunDetail, RunQuery, RunRecord, RunStatus
from durable_worker.replay.diff import Mismatch, mismatch_told
from durable_worker.replay.timeline import recorded_run
from durable_worker.worker.registry import Worker
from durable_worker.worker.replaying import mismatch_with

_AT_A_TIME = 8
_PAGE = 100
_PASSES = 3
"""How often the runs are listed: pages shift while runs end, so the first pass may miss some."""

_PROGRESS_EVERY = 500

_OPEN = [each for each in RunStatus if not each.is_terminal]


class Broken(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """An open run that the code would break. The diff is told once for runs that break alike."""

    run_id: str
    workflow: str
    version: str
    message: str
    mismatch: Mismatch | None = None


class Skipped(Struct, frozen=True, kw_only=True):
    """Runs that this code has no part in."""

    workflow: str
    reason: str
    runs: int


class Report(Struct, frozen=True, kw_only=True):
    checked: int
    ok: int
    broken: Sequence[Broken]
    skipped: Sequence[Skipped]


class OpenRuns:
    """Holds the open runs of an operator against the workflows of a worker."""

    def __init__(self, worker: Worker, client: Client, *, workflow: str | None = None) -> None:
        self._worker = worker
        self._client = client
        self._workflow = workflow
        self._registered = {name for name, _ in worker.workflows}
        self._skipped: Counter[tuple[str, str]] = Counter()
        self._broken: list[Broken] = []
        self._diffs: dict[tuple[str, str, int, str], Broken] = {}
        self._checked = 0

    async def check(self) -> Report:
        """Use once."""
        queue: asyncio.Queue[RunRecord | None] = asyncio.Queue(_PAGE)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._list_all(queue))
            for _ in range(_AT_A_TIME):
                group.create_task(self._check_all(queue))
        return Report(
            checked=self._checked,
            ok=self._checked - len(self._broken),
            broken=sorted(self._told(), key=lambda each: (each.workflow, each.run_id)),
            skipped=[
                Skipped(workflow=workflow, reason=reason, runs=count)
                for (workflow, reason), count in sorted(self._skipped.items())
            ],
        )

    async def _list_all(self, queue: asyncio.Queue[RunRecord | None]) -> None:
        seen: set[str] = set()
        for _ in range(_PASSES):
            known, offset = len(seen), 0
            while page := await self._page(offset):
                offset += len(page)
                for record in page:
                    if record.id not in seen:
                        seen.add(record.id)
                        await queue.put(record)
            if len(seen) == known or offset <= _PAGE:
                break
        for _ in range(_AT_A_TIME):
            await queue.put(None)

    async def _page(self, offset: int) -> Sequence[RunRecord]:
        query = RunQuery(workflow=self._workflow, statuses=_OPEN, limit=_PAGE, offset=offset)
        return await self._client.list(query)

    async def _check_all(self, queue: asyncio.Queue[RunRecord | None]) -> None:
        while (record := await queue.get()) is not None:
            if record.workflow not in self._registered:
                self._skip(record, "not registered here")
            elif not record.workflow_version:
                self._skip(record, "has not begun, so any version will do")
            else:
                await self._check(record)

    async def _check(self, record: RunRecord) -> None:
        broken = await self._look_at(record)
        if (
            broken is not None
        ):  # the run may have moved on between what was listed and what was read
            broken = await self._look_at(record)
        self._checked += 1
        if broken is not None:
            self._keep(broken)
        if not self._checked % _PROGRESS_EVERY:
            tell(f"{self._checked:,} open runs checked, {len(self._broken):,} would break")

    async def _look_at(self, record: RunRecord) -> Broken | None:
        try:
            detail = await self._client.detail(record.id)
        except RunNotFoundError:
            return None
        except (RequestRefusedError, PayloadError) as error:
            return _broken(record, f"it cannot be checked: {error}")
        return None if detail.run.status.is_terminal else self._broken_by(detail)

    def _broken_by(self, detail: RunDetail) -> Broken | None:
        mismatch: Mismatch | None = None
        try:
            error = mismatch_with(self._worker, recorded_run(detail))
        except (RegistrationError, ProtocolError) as refusal:
            message = str(refusal)
        else:
            if error is None:
                return None
            message, mismatch = str(error), mismatch_told(error)
        return _broken(detail.run, message, mismatch)

    def _keep(self, broken: Broken) -> None:
        """Of runs that break alike, only the first by id keeps its diff."""
        mismatch = broken.mismatch
        if mismatch is None:
            self._broken.append(broken)
            return
        key = (broken.workflow, broken.version, mismatch.seq, mismatch.location)
        first = self._diffs.get(key)
        if first is None or broken.run_id < first.run_id:
            self._diffs[key] = broken
        self._broken.append(replace(broken, mismatch=replace(mismatch, diff=())))

    def _told(self) -> Iterator[Broken]:
        whole = {each.run_id: each for each in self._diffs.values()}
        return (whole.get(each.run_id, each) for each in self._broken)

    def _skip(self, record: RunRecord, reason: str) -> None:
        self._skipped[record.workflow, reason] += 1


def _broken(run: RunRecord, message: str, mismatch: Mismatch | None = None) -> Broken:
    return Broken(
        run_id=run.id,
        workflow=run.workflow,
        version=run.workflow_version,
        message=message,
        mismatch=mismatch,
    )
