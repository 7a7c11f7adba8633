"""Wall times of whole processes, in pairs, so that a drifting machine drifts for both."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ratio:
    """Medians in milliseconds of both sides, and of the ratio pair by pair."""

    ours_ms: float
    theirs_ms: float
    ratio: float
    spread: tuple[float, float]


def in_pairs(ours: Callable[[], float], theirs: Callable[[], float], *, pairs: int) -> Ratio:
    theirs(), ours()  # warm the file cache
    measured = [(ours(), theirs()) for _ in range(pairs)]
    ratios = sorted(a / b for a, b in measured)
    return Ratio(
        ours_ms=1000 * statistics.median(a for a, _ in measured),
        theirs_ms=1000 * statistics.median(b for _, b in measured),
        ratio=statistics.median(ratios),
        spread=(ratios[0], ratios[-1]),
    )


def environment() -> dict[str, str]:
    """As an installed program runs: with its bytecode cached."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def run_to_end(code: str) -> float:
    """Seconds that `python -c code` takes."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), check=True)
    return time.perf_counter() - started


def run_to_bell(command: list[str]) -> float:
    """Seconds until the program rings; it is told to stop then."""
    reading, writing = os.pipe()
    started = time.perf_counter()
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment() | {"BENCH_BELL": str(writing), "PYTHONPATH": str(ROOT)},
        pass_fds=[writing],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        os.close(writing)
        rung = os.read(reading, 1)
        seconds = time.perf_counter() - started
        process.terminate()
    os.close(reading)
    if not rung:
        raise RuntimeError(f"{' '.join(command)} ended without receiving a message")
    return seconds
