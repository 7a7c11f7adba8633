"""What really happened, told by steps and workflow bodies outside of everything that is durable.

Each line is `{"what", "attempt", "pid", "at"}`; the TypeScript steps write the same.
"""

import json
import os
import time
from collections import defaultdict
from pathlib import Path

from msgspec import Struct
from msgspec.json import decode

VARIABLE = "INTEROP_JOURNAL"


class Entry(Struct, frozen=True):
    """`attempt` is `<step id>:<attempt>`, or a key of the test's; `at` is epoch ms."""

    what: str
    attempt: str
    pid: int
    at: int


def journal(what: str, attempt: str) -> None:
    path = os.environ.get(VARIABLE)
    if path is None:
        return
    entry = {
        "what": what,
        "attempt": attempt,
        "pid": os.getpid(),
        "at": time.time_ns() // 1_000_000,
    }
    with open(path, "ab") as file:
        file.write(json.dumps(entry).encode() + b"\n")


def read_journal(path: Path) -> list[Entry]:
    if not path.exists():
        return []
    return [decode(line, type=Entry) for line in path.read_bytes().splitlines()]


def check_journal(path: Path, *, killed: set[int]) -> None:
    """No step runs again once its result was confirmed, and what ran again was cut off by a kill.

    Between a step's effect and the broker's confirm of its result a kill makes it run again: nobody
    can tell that from never having run it.
    """
    attempts: dict[str, list[Entry]] = defaultdict(list)
    for entry in read_journal(path):
        attempts[entry.attempt].append(entry)
    assert attempts
    for attempt, entries in attempts.items():
        what = [entry.what for entry in entries]
        assert "end" in what, (attempt, entries)
        if "confirmed" in what:
            assert "start" not in what[what.index("confirmed") :], (attempt, entries)
        starters = [entry.pid for entry in entries if entry.what == "start"]
        assert all(pid in killed for pid in starters[:-1]), (attempt, entries)
