"""A process that a test has started ends together with the test session, however that ends."""

import os
import sys
import threading

LIFELINE = "INTEROP_LIFELINE"
"""Set where standard input ends together with the test session."""


def end_with_the_session() -> None:
    if LIFELINE in os.environ:
        threading.Thread(target=_wait_for_its_end, daemon=True).start()


def _wait_for_its_end() -> None:
    sys.stdin.buffer.read()
    os._exit(1)
