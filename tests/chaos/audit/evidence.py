"""What an audit looks at: files that others wrote, and what the broker listed at the end.

Nothing here, nor in the rules, imports the engine: the auditor shares no code with what it audits.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.reading import Database, rows_of, writers_of


@dataclass(frozen=True)
class Entry:
    """A line of the journal: `what` is start, effect, end or failed; `at` monotonic seconds."""

    what: str
    run: str
    step: str
    attempt: int
    name: str
    pid: int
    at: float
    token: str | None = None
    value: int | None = None
    is_local: bool = False


@dataclass(frozen=True)
class Expected:
    """What must become of a run. `effects` counts steps by name, `*` those of any name."""

    run: str
    workflow: str
    status: str
    values: Sequence[int] = ()
    notes: Sequence[str] = ("",)
    code: str | None = None
    effects: Mapping[str, int] = field(default_factory=dict[str, int])
    undone: Sequence[int] = ()


@dataclass(frozen=True)
class FaultNote:
    kind: str
    targets: Sequence[str]
    pids: Sequence[int]
    began: float
    ended: float
    messages: Sequence[str] = ()
    runs: Sequence[str] = ()


@dataclass(frozen=True)
class Life:
    """A process from start to end. `told`: it had got SIGTERM."""

    name: str
    role: str
    pid: int
    began: float
    ended: float
    code: int
    told: bool


@dataclass(frozen=True)
class Report:
    """What a process that ended by itself still had."""

    pid: int
    threads: Sequence[str] = ()
    tasks: Sequence[str] | None = None
    """None: it ended before it had a loop."""


@dataclass(frozen=True)
class RunRow:
    id: str
    status: str
    output: Any = None
    error: Any = None


@dataclass(frozen=True)
class CheckpointRow:
    run: str
    seq: int
    kind: str
    name: str
    status: str
    output: Any = None

    @property
    def step(self) -> str:
        return f"{self.run}:{self.seq}"


@dataclass(frozen=True)
class Evidence:
    journal: Sequence[Entry] = ()
    expected: Sequence[Expected] = ()
    faults: Sequence[FaultNote] = ()
    lives: Sequence[Life] = ()
    reports: Sequence[Report] = ()
    runs: Sequence[RunRow] = ()
    checkpoints: Sequence[CheckpointRow] = ()
    left_in_tables: Mapping[str, int] = field(default_factory=dict[str, int])
    """Rows of work that is still to be done, by table."""
    queues: Mapping[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    """Messages ready, and taken but not acknowledged."""
    connections: Sequence[str] = ()
    logs: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def gather(
        cls,
        folder: Path,
        *,
        database: Database,
        queues: Mapping[str, tuple[int, int]],
        connections: Sequence[str],
    ) -> "Evidence":
        runs = [
            RunRow(row[0], row[1], _json(row[2]), _json(row[3]))
            for row in rows_of(database, "SELECT id, status, output, error FROM runs")
        ]
        checkpoints = [
            CheckpointRow(row[0], row[1], row[2], row[3], row[4], _json(row[5]))
            for row in rows_of(
                database, "SELECT run_id, seq, kind, name, status, output FROM checkpoints"
            )
        ]
        left = {
            table: int(rows_of(database, f"SELECT count(*) FROM {table}")[0][0])
            for table in ("outbox", "inbox")
        }
        left["lease"] = writers_of(database)
        return cls(
            journal=[Entry(**each) for each in _lines(folder / "journal")],
            expected=[Expected(**each) for each in _lines(folder / "expected")],
            faults=[FaultNote(**each) for each in _lines(folder / "faults")],
            lives=[Life(**each) for each in _lines(folder / "lives")],
            reports=[
                Report(**json.loads(each.read_text()))
                for each in sorted((folder / "reports").iterdir())
            ],
            runs=runs,
            checkpoints=checkpoints,
            left_in_tables=left,
            queues=queues,
            connections=connections,
            logs={each.stem: each.read_text(errors="replace") for each in folder.glob("*.log")},
        )


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def _json(value: bytes | str | None) -> Any:
    return None if value is None else json.loads(value)
