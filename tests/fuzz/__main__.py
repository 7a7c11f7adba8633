"""`python -m tests.fuzz TARGET SECONDS`: coverage-guided, from good messages and the kept corpus.

What breaks an invariant is written to `build/fuzz/TARGET/crash-*`, and the process fails.
"""

import logging
import sys
from pathlib import Path
from random import Random

import atheris
import structlog

with atheris.instrument_imports(include=["durable_worker"], enable_loader_override=False):
    from tests.fuzz.mutation import mutated
    from tests.fuzz.targets import TARGETS

BUILD = Path("build") / "fuzz"
LONGEST = 65_536


def main(name: str, seconds: str) -> None:
    target = TARGETS[name]
    found = BUILD / name
    found.mkdir(parents=True, exist_ok=True)
    seeds = found / "seeds"
    seeds.mkdir(exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (seeds / f"{number:04}").write_bytes(seed)
    (found / "corpus").mkdir(exist_ok=True)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))

    def run(data: bytes) -> None:
        target.run(data)

    def mutator(data: bytes, max_size: int, seed: int) -> bytes:
        random = Random(seed)
        if random.random() < 0.3:
            return atheris.Mutate(data, max_size)
        head, body = data[: target.head], data[target.head :]
        if head and random.random() < 0.15:
            head = atheris.Mutate(head, len(head))
        return (head + mutated(body, random))[:max_size]

    atheris.Setup(
        [
            "fuzz",
            f"-max_total_time={seconds}",
            f"-max_len={LONGEST}",
            "-timeout=60",
            "-rss_limit_mb=2048",
            "-print_final_stats=1",
            "-verbosity=1",
            f"-artifact_prefix={found}/",
            str(found / "corpus"),
            str(seeds),
            *([str(target.corpus)] if target.corpus.is_dir() else []),
        ],
        run,
        custom_mutator=mutator,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python -m tests.fuzz {{{','.join(TARGETS)}}} SECONDS")
    main(sys.argv[1], sys.argv[2])
