"""What the test did and saw, one JSON object a line, for an auditor that trusts nobody's memory."""

import json
from pathlib import Path
from typing import Any


class Logbook:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._path.touch()

    def write(self, **entry: Any) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def read(self) -> list[dict[str, Any]]:
        return read_lines(self._path)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file that others may be writing to."""
    if not path.exists():
        return []
    text = path.read_bytes()
    return [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]
