"""The public API type-checks where it should, and only there (`make check` asks pyright too)."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def test_correct_calls_pass_mypy_and_every_misuse_fails_it() -> None:
    checked = subprocess.run(
        [
            sys.executable,
            *("-m", "mypy", "--strict", "--warn-unused-ignores", "--disable-error-code=empty-body"),
            str(HERE / "correct.py"),
            str(HERE / "misuse.py"),
        ],
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout
