"""Programs that measure by themselves and tell it as JSON in their last line."""

import json
import subprocess
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.environments import ROOT
from tests.bench.figures import WrongResultError
from tests.bench.processes import environment


def with_bench(**more: str) -> dict[str, str]:
    """So that programs of other environments find the bench; and `durable_worker` beside it."""
    return environment(PYTHONPATH=str(ROOT), **more)


def told_by(command: Sequence[str | Path]) -> Any:
    """What it tells. Raises `WrongResultError` if it does not vouch for its results."""
    done = subprocess.run(
        command, cwd=ROOT, env=with_bench(), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()
        raise WrongResultError(f"{' '.join(map(str, command[:4]))} failed: {said[-400:]}")
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def scratch() -> Generator[Path]:
    """A folder on the disk of the checkout: /tmp may be held in memory, where nothing is synced."""
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=build) as folder:
        yield Path(folder)
