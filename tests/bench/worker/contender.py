"""Programs that take tasks from one queue of a broker and put answers on another."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from pamqp.commands import Basic

from tests.bench.environments import ROOT

TEXT = "x" * 200
"""Makes a step task of ours 400 bytes long, as such messages are."""

PERSISTENT = 2
QUORUM: Mapping[str, Any] = {"x-queue-type": "quorum"}

Message: TypeAlias = tuple[Basic.Properties, bytes]


@dataclass(frozen=True, slots=True)
class Contender:
    """`task` makes the task of a number; `number` says which task an answer belongs to, and raises
    where the answer is not the expected one."""

    name: str
    command: Sequence[str | Path]
    tasks: str
    results: str
    task: Callable[[int], Message]
    number: Callable[[Basic.Properties, bytes], int]
    arguments: Mapping[str, Any] = field(default_factory=lambda: QUORUM)
    environment: Mapping[str, str] = field(default_factory=dict)
    cwd: Path = ROOT
