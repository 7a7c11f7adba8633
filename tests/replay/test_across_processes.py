"""What a body decides must not depend on the process that replays it."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_processes_with_different_hash_seeds_decide_the_same_byte_for_byte() -> None:
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.replay.digest"],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    outputs = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert outputs[0] == outputs[1] != ""
