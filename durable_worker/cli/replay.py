"""`durable-worker replay`: recorded runs against today's code."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from durable_worker.cli.diffs import diff_lines
from durable_worker.cli.documents import print_json
from durable_worker.cli.options import Replay
from durable_worker.cli.page import Block, Line, Table, Text, show
from durable_worker.cli.targets import load_worker
from durable_worker.errors import ProtocolError, RegistrationError, UsageError
from durable_worker.replay.diff import Mismatch, mismatch_told
from durable_worker.replay.documents import read_recorded_run
from durable_worker.replay.timeline import RecordedRun
from durable_worker.worker.registry import Worker
from durable_worker.worker.replaying import mismatch_with

_STANDARD_INPUT = "-"


class Replayed(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What became of one history. `outcome`: `ok`, `mismatch`, or `unregistered`."""

    file: str
    run_id: str
    workflow: str
    version: str
    outcome: str
    message: str | None = None
    mismatch: Mismatch | None = None


def perform(options: Replay) -> int:
    worker = load_worker(options.target)
    documents = [(name, _read(name, body)) for name, body in _documents(options.files)]
    results = [
        _replayed(worker, name, recorded, compares_end=options.compares_end)
        for name, recorded in documents
    ]
    if options.is_json:
        print_json(results)
    else:
        show(_page(results))
    return 0 if all(each.outcome == "ok" for each in results) else 1


def _documents(files: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Raises `UsageError` for what cannot be read."""
    for file in files:
        if file == _STANDARD_INPUT:
            yield "standard input", sys.stdin.buffer.read()
            continue
        path = Path(file)
        inside = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not inside:
            raise UsageError(f"there is no *.json in {file}.")
        for each in inside:
            try:
                yield str(each), each.read_bytes()
            except OSError as error:
                raise UsageError(f"{each} cannot be read: {error.strerror}.") from error


def _read(name: str, body: bytes) -> RecordedRun:
    try:
        return read_recorded_run(body)
    except ProtocolError as error:
        raise UsageError(f"{name} is not a history: {error.reason}.") from error


def _replayed(worker: Worker, name: str, recorded: RecordedRun, *, compares_end: bool) -> Replayed:
    task = recorded.task
    fits = Replayed(
        file=name,
        run_id=task.run_id,
        workflow=task.workflow,
        version=task.workflow_version,
        outcome="ok",
    )
    try:
        error = mismatch_with(worker, recorded, compares_end=compares_end)
    except RegistrationError as missing:
        return replace(fits, outcome="unregistered", message=str(missing))
    if error is None:
        return fits
    told = mismatch_told(error)
    return replace(fits, outcome="mismatch", message=str(error), mismatch=told)


def _page(results: Sequence[Replayed]) -> list[Block]:
    rows: list[Sequence[Text | str] | Line] = []
    for each in results:
        style = "green" if each.outcome == "ok" else "red"
        rows.append([Text(each.outcome, style), each.file, each.run_id, _titled(each)])
        if each.message is not None:
            rows.append(Line([Text(each.message, "red")], indent=4))
        if each.mismatch is not None:
            rows += [Line([]), *diff_lines(each.mismatch), Line([])]
    broken = sum(each.outcome != "ok" for each in results)
    count = f"{len(results)} replayed, {broken} no longer fit"
    if not broken:
        count = f"{len(results)} replayed, all fit"
    return [Table((), rows), Line([Text(count, "bold red" if broken else "bold green")])]


def _titled(each: Replayed) -> str:
    return f"{each.workflow} {each.version}"
