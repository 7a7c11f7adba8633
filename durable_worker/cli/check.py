"""`durable-worker check`: would new code break the runs that are open? For use before a deploy."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from durable_worker.cli.diffs import INDENT, diff_lines, shortened_place
from durable_worker.cli.documents import print_json
from durable_worker.cli.options import Check
from durable_worker.cli.page import Block, Cell, Line, Table, Text, show
from durable_worker.cli.places import open_client
from durable_worker.cli.serving import tell
from durable_worker.cli.targets import load_worker
from durable_worker.client import Client
from durable_worker.errors import ProtocolError, RegistrationError, RunNotFoundError
from durable_worker.protocol.runs import RunDetail, RunQuery, RunRecord, RunStatus
from durable_worker.replay.definitions import names_of
from durable_worker.replay.diff import Mismatch, mismatch_told
from durable_worker.replay.timeline import recorded_run
from durable_worker.worker.registry import Worker
from durable_worker.worker.replaying import mismatch_with

_AT_A_TIME = 8
_PAGE = 100
_PASSES = 3
"""How often the runs are listed: pages shift while runs end, so the first pass may miss some."""

_MOST_SHOWN = 50
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


def perform(options: Check) -> int:
    worker = load_worker(options.target)
    report = asyncio.run(_Checker(worker, options).run())
    if options.is_json:
        print_json(report)
    else:
        show(_page(report, worker))
    return 1 if report.broken else 0


class _Checker:
    def __init__(self, worker: Worker, options: Check) -> None:
        self._worker = worker
        self._options = options
        self._registered = {name for name, _ in worker.workflows}
        self._skipped: Counter[tuple[str, str]] = Counter()
        self._broken: list[Broken] = []
        self._diffs: dict[tuple[str, str, int, str], Broken] = {}
        self._checked = 0

    async def run(self) -> Report:
        queue: asyncio.Queue[RunRecord | None] = asyncio.Queue(_PAGE)
        async with open_client(self._options.place) as client, asyncio.TaskGroup() as group:
            group.create_task(self._list_all(client, queue))
            for _ in range(_AT_A_TIME):
                group.create_task(self._check_all(client, queue))
        return Report(
            checked=self._checked,
            ok=self._checked - len(self._broken),
            broken=sorted(self._told(), key=lambda each: (each.workflow, each.run_id)),
            skipped=[
                Skipped(workflow=workflow, reason=reason, runs=count)
                for (workflow, reason), count in sorted(self._skipped.items())
            ],
        )

    async def _list_all(self, client: Client, queue: asyncio.Queue[RunRecord | None]) -> None:
        seen: set[str] = set()
        for _ in range(_PASSES):
            known, offset = len(seen), 0
            while page := await self._page(client, offset):
                offset += len(page)
                for record in page:
                    if record.id not in seen:
                        seen.add(record.id)
                        await queue.put(record)
            if len(seen) == known or offset <= _PAGE:
                break
        for _ in range(_AT_A_TIME):
            await queue.put(None)

    async def _page(self, client: Client, offset: int) -> Sequence[RunRecord]:
        query = RunQuery(
            workflow=self._options.workflow, statuses=_OPEN, limit=_PAGE, offset=offset
        )
        return await client.list(query)

    async def _check_all(self, client: Client, queue: asyncio.Queue[RunRecord | None]) -> None:
        while (record := await queue.get()) is not None:
            if record.workflow not in self._registered:
                self._skip(record, "not registered here")
            elif not record.workflow_version:
                self._skip(record, "has not begun, so any version will do")
            else:
                await self._check(client, record)

    async def _check(self, client: Client, record: RunRecord) -> None:
        broken: Broken | None = None
        for _ in range(2):  # the run may have moved on between what was listed and what was read
            try:
                detail = await client.detail(record.id)
            except RunNotFoundError:
                broken = None
            else:
                is_over = detail.run.status.is_terminal
                broken = None if is_over else self._broken_by(detail)
            if broken is None:
                break
        self._checked += 1
        if broken is not None:
            self._keep(broken)
        if not self._checked % _PROGRESS_EVERY:
            tell(f"{self._checked:,} open runs checked, {len(self._broken):,} would break")

    def _broken_by(self, detail: RunDetail) -> Broken | None:
        run = detail.run
        mismatch: Mismatch | None = None
        try:
            error = mismatch_with(self._worker, recorded_run(detail))
        except (RegistrationError, ProtocolError) as refusal:
            message = str(refusal)
        else:
            if error is None:
                return None
            message, mismatch = str(error), mismatch_told(error)
        return Broken(
            run_id=run.id,
            workflow=run.workflow,
            version=run.workflow_version,
            message=message,
            mismatch=mismatch,
        )

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


def _page(report: Report, worker: Worker) -> list[Block]:
    blocks: list[Block] = []
    if report.broken:
        blocks += [_broken_table(report.broken), Line([])]
        for each in report.broken:
            if each.mismatch is not None and each.mismatch.diff:
                titled = f"{each.workflow} {each.version}, run {each.run_id}"
                blocks += [Line([Text(titled, "bold")]), *diff_lines(each.mismatch), Line([])]
    if report.skipped:
        rows: list[list[Cell]] = [
            [Text("skipped", "dim"), f"{each.runs:,}", each.workflow, Text(each.reason, "dim")]
            for each in report.skipped
        ]
        blocks += [Table((), rows), Line([])]
    return [*blocks, Line(_summary(report, worker))]


def _broken_table(broken: Sequence[Broken]) -> Table:
    rows: list[Sequence[Cell] | Line] = []
    for each in broken[:_MOST_SHOWN]:
        found = each.mismatch
        run: list[Cell] = [each.run_id, f"{each.workflow} {each.version}"]
        if found is None:
            rows.append([*run, "", "", ""])
            rows.append(Line([Text(each.message, "red")], indent=INDENT))
            continue
        what = Text(f"{found.recorded} -> {found.asked}", "red")
        rows.append([*run, str(found.seq), what, shortened_place(found.location)])
    if len(broken) > _MOST_SHOWN:
        left = f"... and {len(broken) - _MOST_SHOWN:,} more; --json lists them all"
        rows.append(Line([Text(left, "dim")], indent=INDENT))
    return Table(["RUN", "WORKFLOW", "SEQ", "WHAT WOULD BREAK", "LINE"], rows)


def _summary(report: Report, worker: Worker) -> list[Cell]:
    counts = f"{report.checked:,} open runs checked, {report.ok:,} fit"
    skipped = sum(each.runs for each in report.skipped)
    if skipped:
        counts += f", {skipped:,} skipped"
    if report.broken:
        return [Text(f"{counts}, {len(report.broken):,} would break", "bold red")]
    served = names_of(worker.workflows.values())
    nothing = f" (this code has {served})" if not report.checked else ""
    return [Text(f"{counts}, none would break{nothing}", "bold green")]
