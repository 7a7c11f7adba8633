import signal
import sys
import time
from pathlib import Path

import pytest

from tests.bench.figures import UnavailableError
from tests.bench.processes import Program, family_of

FAMILY = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", '''
block = bytearray(50_000_000)
for _ in range(3_000_000): pass
print("ready", flush=True)
import signal; signal.pause()
'''])
child.wait()
"""


def test_what_a_program_costs_includes_its_children_and_they_end_with_it() -> None:
    with Program([sys.executable, "-c", FAMILY]) as program:
        program.wait_until(lambda: "ready" in program.said(), seconds=60, what="readiness")
        family = family_of(program.pid)
        assert len(family) == 2
        assert program.cpu_seconds() > 0.03
        assert program.peak_megabytes() >= program.rss_megabytes() > 50
    deadline = time.monotonic() + 10
    while any(is_alive(pid) for pid in family):
        assert time.monotonic() < deadline


def is_alive(pid: int) -> bool:
    """Not so of one that is dead and not yet buried by its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_program_that_has_ended_is_said_with_its_last_words() -> None:
    code = "raise SystemExit('no broker here')"
    said = pytest.raises(UnavailableError, match="status 1: no broker here")
    with Program([sys.executable, "-c", code]) as program, said:
        program.wait_until(lambda: False, seconds=60, what="nothing")


def test_a_program_that_does_not_heed_a_request_to_end_is_killed() -> None:
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True)"
    with Program([sys.executable, "-c", f"{code}\nwhile True: signal.pause()"]) as program:
        program.wait_until(lambda: "deaf" in program.said(), seconds=60, what="deafness")
        program.stop(seconds=0.1)
    assert program.process.returncode == -signal.SIGKILL
