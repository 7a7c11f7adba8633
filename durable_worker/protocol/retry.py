"""When to try again: the arithmetic that workers and operators share."""

from zlib import crc32

from durable_worker.protocol.commands import RetryOptions
from durable_worker.protocol.failure import Failure

TIMED_OUT = "timeout"
"""Code of an attempt that had no result in time."""


def may_retry(options: RetryOptions | None, failure: Failure, *, attempt: int) -> bool:
    """Whether attempt number `attempt` (1-based), which ended in `failure`, has a successor."""
    if options is None or attempt >= options.attempts or failure.retryable is False:
        return False
    return failure.code is None or failure.code not in (options.non_retryable or ())


def delay_before_next(options: RetryOptions, *, attempt: int, key: str) -> int:
    """Milliseconds to wait after attempt number `attempt` has failed.

    The jitter depends on `key` and `attempt` alone, so that a replay computes the same delay while
    many runs that failed together spread out.
    """
    if options.initial_ms == 0:
        return 0
    try:
        base = min(float(options.max_ms), options.initial_ms * options.factor ** (attempt - 1))
    except OverflowError:
        base = float(options.max_ms)
    spread = crc32(f"{key}:{attempt}".encode()) / 0xFFFFFFFF * 2 - 1
    return max(0, round(base * (1 + options.jitter * spread)))
