"""`durable-worker check`: would new code break the runs that are open? For use before a deploy."""

import asyncio
from collections.abc import Sequence

from durable_worker.cli.diffs import INDENT, diff_lines, shortened_place
from durable_worker.cli.documents import print_json
from durable_worker.cli.open_runs import Broken, OpenRuns, Report
from durable_worker.cli.options import Check
from durable_worker.cli.page import Block, Cell, Line, Table, Text, show
from durable_worker.cli.places import open_client
from durable_worker.cli.targets import load_worker
from durable_worker.replay.definitions import names_of
from durable_worker.worker.registry import Worker

_MOST_SHOWN = 50


def perform(options: Check) -> int:
    worker = load_worker(options.target)
    report = asyncio.run(_check(worker, options))
    if options.is_json:
        print_json(report)
    else:
        show(_page(report, worker))
    return 1 if report.broken else 0


async def _check(worker: Worker, options: Check) -> Report:
    async with open_client(options.place, codec=worker.codec) as client:
        return await OpenRuns(worker, client, workflow=options.workflow).check()


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
