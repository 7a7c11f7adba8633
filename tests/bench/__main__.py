"""Measure this worker beside its peers on this machine, in one run, and print what was measured.

    python -m tests.bench            (make bench, make bench-quick)

Figures also go to build/bench.json; `--markdown build/bench.json` prints that as a table.
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tests.bench import table
from tests.bench.context import Bench
from tests.bench.environments import ROOT
from tests.bench.figures import Row, Target, UnavailableError
from tests.bench.registry import FULL_SECONDS, QUICK_SECONDS, Measurement, measurements

TARGET = ROOT / "build" / "bench.json"


def main() -> int:
    arguments = parsed()
    if arguments.markdown:
        print(table.markdown(json.loads(arguments.markdown.read_text())))
        return 0
    only = [key for key in arguments.only.split(",") if key]
    try:
        chosen = measurements(only)
    except KeyError as error:
        print(f"error: {error.args[0]}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended first
    TARGET.unlink(missing_ok=True)
    TARGET.parent.mkdir(exist_ok=True)
    rows: list[Row] = []
    started = time.monotonic()
    print(table.HEAD, flush=True)
    with Bench(is_quick=arguments.quick, installs=not arguments.peers_only_if_installed) as bench:
        for measurement in chosen:
            rows += rows_of(measurement, bench)
            TARGET.write_text(table.to_json(rows, is_quick=arguments.quick))
    print(f"{len(rows)} rows in {time.monotonic() - started:.0f} s, {TARGET.relative_to(ROOT)}")
    return any(row.is_broken for row in rows)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller counts, under five minutes")
    parser.add_argument("--only", default="", metavar="KEY,...", help="measure these keys alone")
    parser.add_argument(
        "--peers-only-if-installed",
        action="store_true",
        help="compare with peers that an earlier run has installed, and install none",
    )
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="print FILE as a table")
    return parser.parse_args()


def rows_of(measurement: Measurement, bench: Bench) -> list[Row]:
    """One row for each target, printed as they come; a measurement that fails fails alone."""
    left = {target.key: target for target in measurement.targets}
    rows: list[Row] = []

    def add(row: Row) -> None:
        rows.append(row)
        print(table.line(row), flush=True)

    reason, is_broken = "the measurement gave no figure for it", True
    try:
        with time_limit(QUICK_SECONDS if bench.is_quick else FULL_SECONDS):
            for reading in measurement.measure(bench):
                add(Row(_taken(left, reading.key), reading))
    except UnavailableError as error:
        reason, is_broken = f"not available: {error}", False
    except Exception as error:
        reason = f"broken: {type(error).__name__}: {error}"
    for target in left.values():
        add(Row(target, reason=" ".join(reason.split()), is_broken=is_broken))
    return rows


def _taken(left: dict[str, Target], key: str) -> Target:
    target = left.pop(key, None)
    if target is None:
        raise LookupError(f"a reading for {key!r}, which is no target of it or was read before")
    return target


@contextmanager
def time_limit(seconds: float) -> Generator[None]:
    """Raises `TimeoutError` in whatever runs then."""

    def expire(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    sys.exit(main())
