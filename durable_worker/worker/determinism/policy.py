"""Whether bodies are checked for what a replay could not repeat, and what happens then."""

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum

from durable_worker.errors import UsageError

DETERMINISM_VARIABLE = "DURABLE_DETERMINISM"


class Determinism(StrEnum):
    """`WARN` samples turns and logs `nondeterministic_call`, once for each place in the code.

    `RAISE` checks every turn, replays each of them a second time, and fails the run.
    """

    OFF = "off"
    WARN = "warn"
    RAISE = "raise"


def stated_or(default: Determinism) -> Determinism:
    """What `DURABLE_DETERMINISM` says, else `default`. Raises `UsageError`."""
    stated = os.environ.get(DETERMINISM_VARIABLE)
    if not stated:
        return default
    try:
        return Determinism(stated)
    except ValueError:
        raise UsageError(
            f"{DETERMINISM_VARIABLE} is {stated!r}; it can be {', '.join(Determinism)}"
        ) from None


def determinism_here() -> Determinism:
    """What `DURABLE_DETERMINISM` says, else `RAISE` in tests and development, else `WARN`.

    A test is a process that pytest runs or has started (it sets `PYTEST_VERSION`, and while a test
    runs `PYTEST_CURRENT_TEST`); development is Python's own development mode (`python -X dev`).
    """
    is_test = "PYTEST_VERSION" in os.environ or "PYTEST_CURRENT_TEST" in os.environ
    return stated_or(Determinism.RAISE if is_test or sys.flags.dev_mode else Determinism.WARN)


is_unchecked: ContextVar[bool] = ContextVar("durable_unchecked", default=False)


@contextmanager
def unchecked() -> Generator[None]:
    """Code of a body that is not checked for calls that a replay could not repeat.

    For what reads a clock or a file and still gives the same on every replay, such as a library
    that loads its own data when it is first used.
    """
    token = is_unchecked.set(True)
    try:
        yield
    finally:
        is_unchecked.reset(token)
