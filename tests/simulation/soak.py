"""`make soak`: seed after seed until stopped, or for as many as are asked for.

A seed that fails is written down at once, with the fewest faults that it needs.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path
from time import monotonic

from durable_worker.testing.simulation.campaign import campaign
from tests.simulation.bodies import plan_for

PER_ROUND = 2_000


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=None, help="how many; default: no end")
    parser.add_argument("--into", type=Path, default=Path("build/soak"), help="for failing seeds")
    options = parser.parse_args()
    seed, failed, started = options.first, 0, monotonic()
    faults: Counter[str] = Counter()
    end = None if options.seeds is None else seed + options.seeds
    try:
        while end is None or seed < end:
            following = seed + PER_ROUND if end is None else min(seed + PER_ROUND, end)
            report = campaign(plan_for, range(seed, following))
            faults += report.faults
            for failure in report.failures:
                failed += 1
                options.into.mkdir(parents=True, exist_ok=True)
                path = options.into / f"seed-{failure.seed}.txt"
                path.write_text(f"{failure}\n")
                print(f"seed {failure.seed} fails: {path}", flush=True)
            seed = following
            rate = (seed - options.first) / (monotonic() - started)
            print(
                f"{seed - options.first:,} seeds, {faults.total():,} faults, {failed} failed, "
                f"{rate:.0f} seeds a second",
                flush=True,
            )
    except KeyboardInterrupt:
        print(f"stopped before seed {seed:,}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
